"""The pages of a store's clerk: search, customers, orders and sales, the end of day. Served from the channel's own
database, so they work while headquarters cannot be reached.

    app            the application, its routes and errors
    screen         what every page needs: session, language, the state of the connection
    connection     whether the store reaches headquarters
    changes        server-sent events, by which open pages follow the database
    *_pages        the routes, by subject; `*_form` reads their forms
    languages      translations; reasons and formats by language
"""

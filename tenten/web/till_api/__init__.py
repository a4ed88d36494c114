"""The API for tills: `/v1`, served by a store from its own database, with or without a connection to headquarters.

routes                                  the router
customers, transactions, days, events   the operations
inputs, outputs, examples               the documents, from which the OpenAPI description is made
exact_json, headers, cursors            JSON with exact decimals; headers; positions in lists
till                                    the open channel, and its events
access, openapi                         the access token; the description
"""

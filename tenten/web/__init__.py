"""HTTP: health and metrics of every process, the API for tills and the screen of a store, headquarters' dashboard.

    serving       address, server, access tokens, protection of requests: shared by all
    health        /livez, /readyz and /metrics, on every process
    till_api      /v1, served by a store from its own database
    store_screen  the pages of a store's clerk
    dashboard     the pages of headquarters

Only this package imports FastAPI. It needs the extra `web`; without `--http` nothing of it is imported.
"""

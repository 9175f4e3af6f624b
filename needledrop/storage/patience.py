"""How patient fsspec is with an object store; imported by who opens URIs through it.

fsspec's S3 files try five times, and the client below them five times each, for as long as minutes;
and they remember listings, so that a file which another process wrote since is not seen. Plays,
tracks and Feast's offline files are read through it; all else goes through ``needledrop.storage``.
"""

import fsspec.config

_DEFAULTS = {
    "config_kwargs": {
        "retries": {"mode": "standard", "total_max_attempts": 2},
        "connect_timeout": 5,
        "read_timeout": 60,
    },
    "use_listings_cache": False,
}

fsspec.config.conf["s3"] = {**_DEFAULTS, **fsspec.config.conf.get("s3", {})}

"""Where the token comes from that Kubeflow knows the caller by.

In this order: ``--token-file``; the variable NEEDLEDROP_KFP_TOKEN; the service account's token that
Kubernetes mounts into a pod for Kubeflow Pipelines; none (a port-forward, or a cluster of one
user). Files are read again for every request, since Kubernetes renews them.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from needledrop.errors import ConfigRejected

VARIABLE = "NEEDLEDROP_KFP_TOKEN"


@dataclass(frozen=True)
class TokenSource:
    """A token's place; the token itself is kept nowhere.

    Attributes:
        origin: what messages call it.
        path: of the file; None where the token is in the environment, or where there is none.
        variable: of the environment.
    """

    origin: str
    path: Path | None = None
    variable: str = ""

    def read(self) -> str:
        """Return the token; empty where there is none.

        Raises:
            ConfigRejected: it can't be read, or is no token. The message doesn't hold it.
        """
        if self.path is None:
            text = os.environ.get(self.variable, "") if self.variable else ""
        else:
            try:
                text = self.path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "not a text"
                raise ConfigRejected(
                    f"{self.origin}: expected a token, got: {reason}; write the token to that file"
                ) from None
        token = text.strip()
        # A line break or another sign that a header can't carry would end in an exception that
        # quotes the header.
        if (self.path or self.variable) and not (
            token and token.isascii() and token.isprintable() and " " not in token
        ):
            raise ConfigRejected(
                f"{self.origin}: expected one token of printable signs, got "
                f"{'nothing' if not token else 'something else'}"
            )
        return token


def token_source(file: Path | None, environment: Mapping[str, str]) -> TokenSource:
    """Choose the place of the token; it is read once, to see that it can be.

    Raises:
        ConfigRejected: the chosen place has no token.
    """
    # As kfp has them (kfp.client.KF_PIPELINES_SA_TOKEN_*), without the seconds of importing it.
    mounted = Path(
        environment.get("KF_PIPELINES_SA_TOKEN_PATH") or "/var/run/secrets/kubeflow/pipelines/token"
    )
    if file is not None:
        source = TokenSource(f"from --token-file {file}", path=file)
    elif VARIABLE in environment:
        source = TokenSource(f"from the variable {VARIABLE}", variable=VARIABLE)
    elif mounted.is_file():
        source = TokenSource(f"of the service account, from {mounted}", path=mounted)
    else:
        source = TokenSource("none was given")
    source.read()
    return source

"""What opens Label Studio: a personal access token, which buys short-lived access tokens, or a legacy token."""

import base64
import json
import re
import time
from collections.abc import Callable

from prelabel.errors import InputError

TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"
"""Environment variable with the token; the same name as Label Studio's own SDK uses."""

DEFAULT_LIFETIME_S = 300.0
"""How long an access token lives where it does not say it; Label Studio's default."""

_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")
_PLAIN = re.compile(r"[\x21-\x7e]+")


class Token:
    """A token and the `Authorization` header that it makes; its `repr` does not show it.

    Args:
        secret: The token as Label Studio shows it.
        clock: Seconds, monotonic.

    Raises:
        InputError: The token is empty or holds blanks; the message does not show it.
    """

    def __init__(self, secret: str, clock: Callable[[], float] = time.monotonic) -> None:
        if not _PLAIN.fullmatch(secret):
            raise InputError(
                f"set the environment variable {TOKEN_VARIABLE} to a token of Label Studio (Account & Settings > "
                "Personal Access Token): it is not set, or holds blanks or other characters that no token has"
            )
        self._secret, self._clock = secret, clock
        self._access, self._renew_at = "", 0.0
        self.is_personal = _JWT.fullmatch(secret) is not None
        """Whether it is a personal access token (a JWT refresh token, not sent with requests)."""

    def __repr__(self) -> str:
        return f"Token({'personal' if self.is_personal else 'legacy'})"

    def header(self) -> str | None:
        """Returns the value of `Authorization`; None where an access token has to be bought first."""
        if not self.is_personal:
            return f"Token {self._secret}"
        return f"Bearer {self._access}" if self._access and self._clock() < self._renew_at else None

    def purchase(self) -> dict[str, str]:
        """Returns the body of the request that buys an access token."""
        return {"refresh": self._secret}

    def bought(self, access: str) -> None:
        """Keeps an access token for four fifths of its life."""
        self._access = access
        self._renew_at = self._clock() + 0.8 * _lifetime_s(access)

    def forget(self) -> None:
        """Drops the access token, for example because it was refused."""
        self._access = ""


def _lifetime_s(access: str) -> float:
    """Returns how long a JWT lives; by its own two times, since the clock here may be another than there."""
    try:
        payload = access.split(".")[1]
        fields = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return max(1.0, float(fields["exp"]) - float(fields["iat"]))
    except (ValueError, KeyError, IndexError, TypeError):
        return DEFAULT_LIFETIME_S

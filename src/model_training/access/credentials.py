"""Which of the configured ways in a credential is for; none is tried twice.

A token is looked at before anybody is asked about it: API keys have a prefix, JSON Web Tokens
name their issuer, and only what none of these is for goes to the cluster. Trying one way after
another would let an outage of one decide who somebody is.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from model_training.access.principals import LocalToken, Principal, bearer_token
from model_training.errors import Unauthenticated

if TYPE_CHECKING:  # each is loaded where that way in is opened (opening.py)
    from model_training.access.api_keys import ApiKeys
    from model_training.access.jwt_tokens import Issuers
    from model_training.access.token_reviews import TokenReviews

REFUSED: Final = "The credential is not good here."


class Credentials:
    """Tells who sent a request, by all ways in that are open.

    Args:
        issuers: of JSON Web Tokens.
        keys: of this service.
        reviews: of tokens, by the cluster.
        local: the token in the data folder.
    """

    def __init__(
        self,
        *,
        issuers: "Issuers | None" = None,
        keys: "ApiKeys | None" = None,
        reviews: "TokenReviews | None" = None,
        local: LocalToken | None = None,
    ) -> None:
        self._issuers = issuers
        self._keys = keys
        self._reviews = reviews
        self._local = local

    async def authenticate(self, headers: Mapping[str, str]) -> Principal:
        """The sender.

        Raises:
            Unauthenticated: nobody, or nobody we know.
            AccessUnavailable: who it is cannot be told now.
        """
        token = bearer_token(headers)
        if self._keys is not None and self._keys.is_key(token):
            return self._keys.principal(token)
        claimed = None if self._issuers is None else self._issuers.claimed(token)
        if self._issuers is not None and claimed is not None:
            return await self._issuers.principal(claimed)
        if self._local is not None and self._local.is_it(token):
            return self._local.principal
        if self._reviews is not None:
            return await self._reviews.principal(token)
        raise Unauthenticated(REFUSED)

"""Who a token is of, asked as the service asks: first whose it says it is, then whether it is."""

from model_training.access.jwt_tokens import Issuers
from model_training.access.principals import Principal
from model_training.errors import Unauthenticated


async def holder(issuers: Issuers, token: str) -> Principal:
    claimed = issuers.claimed(token)
    if claimed is None:
        raise Unauthenticated
    return await issuers.principal(claimed)


async def accepts(issuers: Issuers, token: str) -> bool:
    try:
        await holder(issuers, token)
    except Unauthenticated:
        return False
    return True

"""The headers that every answer has, whatever its route: what browsers may do with it.

They are bytes, ready to be sent: nothing is encoded or copied for a request.
"""

RawHeaders = tuple[tuple[bytes, bytes], ...]

# An answer is a picture, JSON or text: a browser that shows one needs nothing beside it.
NOTHING = b"default-src 'none'; frame-ancestors 'none'"
# Swagger UI, as FastAPI's page gets it; the script that starts it and its styles are inline.
SWAGGER = (
    b"default-src 'none'; script-src 'unsafe-inline' https://cdn.jsdelivr.net; "
    b"style-src 'unsafe-inline' https://cdn.jsdelivr.net; connect-src 'self'; "
    b"img-src 'self' data: https://fastapi.tiangolo.com; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# The page gets scripts, styles and data from here alone; blob: is a picture or a camera in it.
PAGE = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    b"connect-src 'self'; media-src blob:; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'"
)
POLICIES = {"/docs": SWAGGER, "/": PAGE}  # of the pages, which need more
NO_STORE = (b"cache-control", b"no-store")


class ConstantHeaders:
    """The headers by method and path. `shared`: other origins' pages may use the answers."""

    def __init__(self, shared: bool = False) -> None:
        self.usual = with_policy(NOTHING, shared)
        self.post = (*self.usual, NO_STORE)
        self.pages = {path: with_policy(policy, shared) for path, policy in POLICIES.items()}

    def of(self, method: str, path: str) -> RawHeaders:
        if method == "POST":  # what became of somebody's photo
            return self.post
        return self.pages.get(path, self.usual)


def with_policy(policy: bytes, shared: bool) -> RawHeaders:
    return (
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"cross-origin" if shared else b"same-origin"),
        (b"content-security-policy", policy),
        (b"x-frame-options", b"DENY"),
    )

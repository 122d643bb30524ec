"""GET /: the page, and the files it is made of.

They are read once, and sent with an ETag: a browser asks each time whether it still has the
newest (`no-cache`), so that a page never mixes files of two releases.
"""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from service.persons import is_known
from service.problems import Problem

FOLDER = Path(__file__).with_name("page")
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpg": "image/jpeg",
}

HEADERS = {
    "Cache-Control": "no-cache",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
}


@dataclass(frozen=True)
class File:
    """One file of the page."""

    content: bytes
    media_type: str
    etag: str


def read_files(folder: Path) -> dict[str, File]:
    """The files by their names. Raises KeyError on one of a kind that no page is made of."""
    files = {}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        etag = f'"{sha256(content).hexdigest()[:32]}"'
        files[path.name] = File(content, MEDIA_TYPES[path.suffix], etag)
    return files


FILES = read_files(FOLDER)
PATHS = frozenset(("/", *(f"/page/{name}" for name in FILES)))  # what wants no API key


async def get_page(request: Request) -> Response:
    """The page itself, at /."""
    return answer(request, FILES["index.html"])


async def get_file(request: Request) -> Response:
    """A file that the page names, at /page/NAME."""
    name = request.path_params["name"]
    file = FILES.get(name)
    if file is None:
        raise Problem("not_found", f"the page has no file {name}")
    return answer(request, file)


def answer(request: Request, file: File) -> Response:
    """The file, or 304 where the browser has it already."""
    headers = {**HEADERS, "ETag": file.etag}
    if is_known(file.etag, ",".join(request.headers.getlist("if-none-match"))):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)


router = APIRouter()
# Starlette's routes, which answer HEAD as well, and are no part of the API that is described.
router.add_route("/", get_page, include_in_schema=False)
router.add_route("/page/{name}", get_file, include_in_schema=False)

"""Client and AsyncClient of the service: photos in, pictures out, through restarts and rushes.

>>> from service.client import Client
>>> with Client("http://127.0.0.1:8000") as client:
...     client.transfer("house_number.png").picture.show()
...     client.emoji("me.jpg", size=512).image
...     client.person("ann").emoji("a.jpg", "b.jpg").photos
...     for done in client.transfer_many(Path("photos").glob("*.jpg")):
...         print(done.photo, done.error or len(done.result.image))

Needs neither onnxruntime nor FastAPI.
"""

from service.client.async_client import AsyncClient, AsyncPerson
from service.client.calls import JudgedPhoto, PersonEmoji, Transferred
from service.client.client import Client, Person
from service.client.errors import (
    BrokenError,
    ClientError,
    PhotoError,
    RefusedError,
    UnavailableError,
    UnreachableError,
)
from service.client.many import Done
from service.client.photos import Photo

__all__ = [
    "AsyncClient",
    "AsyncPerson",
    "BrokenError",
    "Client",
    "ClientError",
    "Done",
    "JudgedPhoto",
    "Person",
    "PersonEmoji",
    "Photo",
    "PhotoError",
    "RefusedError",
    "Transferred",
    "UnavailableError",
    "UnreachableError",
]

"""Photos carried over by a model that is loaded here."""

from collections.abc import Generator, Sequence
from pathlib import Path

from tqdm import tqdm

from service.carried import Carried, Wish
from service.cli import Fault
from service.emoji import draw_emoji, finish
from service.manifest import ModelError
from service.models import Model, Models, model_folders
from service.problems import Problem
from service.schemas import Face
from service.settings import Settings
from service.transfer import transfer


class Here:
    """A Carrier. Raises Fault where there is no such model."""

    def __init__(self, settings: Settings, wish: Wish) -> None:
        default = settings.emoji_model if wish.person else settings.default_model
        self.model = load_model(settings, wish.reference or default)
        self.wish = wish
        self.max_pixels = settings.max_pixels
        self.name = self.model.manifest.name
        self.reference = self.model.reference
        self.of_faces = self.model.manifest.alignment is not None

    def each(self, photos: Sequence[Path]) -> Generator[Carried, None, None]:
        # disable=None: no bar where stderr is no terminal.
        for photo in tqdm(photos, unit="photo", disable=None):
            yield self.carry(photo)

    def carry(self, photo: Path) -> Carried:
        """What the service would answer to a photo."""
        try:
            return self.draw(photo, photo.read_bytes())
        except Problem as problem:
            return Carried(photo, problem.code, problem.detail)
        except OSError as error:
            return Carried(photo, "unreadable", error.strerror or str(error))

    def draw(self, photo: Path, content: bytes) -> Carried:
        """Raises Problem."""
        wish, model = self.wish, self.model
        face = None
        if self.of_faces:
            emoji = draw_emoji(content, model, max_pixels=self.max_pixels)
            found = emoji.found
            face = Face(box=found.box, score=found.score, count=len(found.boxes))
            drawn = finish(emoji.y, emoji.f_distance, model, wish.size, wish.picture_format)
        else:
            drawn = transfer(
                content,
                model,
                wish.picture_format,
                distance=wish.distance,
                max_pixels=self.max_pixels,
            )
        return Carried(photo, "ok", "", drawn.content, self.reference, drawn.f_distance, face)


def load_model(settings: Settings, reference: str) -> Model:
    """The one model that is asked for. Raises Fault."""
    name = reference.partition("@")[0]
    try:
        folders = model_folders(settings.models)
        versions = [folder for folder in folders if folder.name.partition("@")[0] == name]
        if not versions:
            names = ", ".join(folder.name for folder in folders)
            raise Fault(f"no model {name!r} in {settings.models}; there is: {names}")
        models = [Model(folder, settings.device, settings.threads) for folder in versions]
        return Models(models, name).find(reference)
    except (ModelError, Problem) as error:
        raise Fault(str(error)) from error

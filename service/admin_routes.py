"""POST /admin/reload: for whoever runs the service."""

from fastapi import APIRouter, Request

from service.lifecycle import Service
from service.manifest import ModelError
from service.problems import Problem, documented
from service.schemas import ModelList

router = APIRouter(prefix="/admin")


@router.post(
    "/reload",
    summary="Serve what the models' directory holds now",
    responses=documented("unauthorized", "not_reloaded", "not_ready"),
)
async def post_reload(request: Request) -> ModelList:
    """Load models that are new or have changed, warm them up, then let go of what is no longer
    there. Requests are answered all the while; where a model cannot be served nothing changes.

    Wants an API key, and that there is one: without keys anybody could make the service work.
    """
    service: Service = request.app.state.service
    if not service.settings.api_keys:
        raise Problem("unauthorized", "set DTN_API_KEYS to reload by request, or send SIGHUP")
    service.require_started()
    try:
        models = await service.reload()
    except ModelError as error:
        raise Problem("not_reloaded", str(error)) from error
    return ModelList(models=models.cards())

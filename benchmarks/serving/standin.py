"""Our service with its device replaced: python -m benchmarks.serving.standin.

All of the service's own code runs, from the socket to the batch; only what the default
model's session does is the stand-in's. DTN_* settings apply, BENCH_* describe the device.
"""

import logging

from benchmarks.serving.device import stand_in
from service.app import create_app
from service.commands import read_settings
from service.models import load_models
from service.server import listen, make_server, settle


def main() -> None:
    """Serve until told to stop."""
    settings = read_settings()
    logging.basicConfig(level=settings.log_level.upper())
    models = load_models(settings.models, settings.default_model, settings.device, settings.threads)
    model = models.find(None)
    model.sessions["transfer"] = stand_in()
    model.device = "cuda"  # one run at a time, as on any device of which there is one
    server = make_server(create_app(settings, models))
    server.service.settle = settle  # as serve() does
    server.run(sockets=[listen(settings.host, settings.port)])


if __name__ == "__main__":
    main()

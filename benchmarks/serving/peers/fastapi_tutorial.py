"""What tutorials show: an async endpoint, UploadFile, Pillow, and session.run inside."""

from io import BytesIO
from typing import Annotated

import numpy as np
import uvicorn
from fastapi import FastAPI, File, Response, UploadFile
from PIL import Image

from benchmarks.serving.device import open_session, port

app = FastAPI()
session = open_session(tuned=False)


@app.post("/transfer")
async def transfer(file: Annotated[UploadFile, File()]) -> Response:
    x = np.asarray(Image.open(BytesIO(await file.read())).convert("RGB"))
    (y,) = session.run(["y"], {"x": x[None]})
    answer = BytesIO()
    Image.fromarray(y[0, :, :, 0]).save(answer, "PNG")
    return Response(answer.getvalue(), media_type="image/png")


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=port(), access_log=False, log_level="warning")

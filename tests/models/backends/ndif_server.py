"""The far end of the network in the tests of NDIF: nnsight and a model, without emlab.

It runs as a process of its own, ``python ndif_server.py MODEL_FOLDER``, prints its port, takes requests as nnsight 0.8
sends them, and runs them as NDIF does. A request that names anything of another library than torch's and nnsight's is
refused, and so are the key "wrong" and every model but "far/tiny".
"""

import asyncio
import io
import json
import sys

import torch
import zstandard
from aiohttp import WSMsgType, web
from nnsight import TransformersModel
from nnsight.intervention.serialization import CustomCloudUnpickler
from nnsight.schema.request import RequestModel
from nnsight.schema.response import ResponseModel, Status
from nnsight.tracing.tracer import _saves, dec, inc
from transformers import AutoTokenizer

sys.modules["emlab"] = None  # to import it is an error from here on

KNOWN = {"torch", "nnsight", "cloudpickle", "collections", "builtins", "transformers"}


class Strict(CustomCloudUnpickler):
    def find_class(self, module, name):
        if module.split(".")[0] not in KNOWN:
            raise ValueError(f"the request names {module}.{name}")
        return super().find_class(module, name)


def run(model, envelope, blob):
    """The saved values of a request."""
    model._remoteable_set_env(envelope["env"])
    objects = model._remoteable_persistent_objects()
    tracer = RequestModel.deserialize(blob, objects, envelope["compress"], Strict)
    inc()
    try:
        tracer.execute(tracer.info.code)
        saved = {k: v for k, v in tracer.info.frame.f_locals.items() if id(v) in _saves()}
    finally:
        dec()
    with io.BytesIO() as file:
        torch.save(saved, file)
        return zstandard.ZstdCompressor().compress(file.getvalue()) if envelope["compress"] else file.getvalue()


async def serve(folder):
    model = TransformersModel(
        folder, task="text-generation", tokenizer=AutoTokenizer.from_pretrained(folder), dispatch=True
    )
    sockets = {}

    async def subscribe(request):
        if request.headers.get("ndif-api-key") == "wrong":
            raise web.HTTPUnauthorized
        socket = web.WebSocketResponse(max_msg_size=0)
        await socket.prepare(request)
        session = str(len(sockets))
        sockets[session] = socket
        await socket.send_json({"session_id": session})
        async for message in socket:
            if message.type is WSMsgType.ERROR:
                break
        return socket

    async def take(request):
        form = await request.post()
        envelope, blob = json.loads(form["data"]), form["blob"].file.read()
        print(json.dumps({**envelope, "key": request.headers.get("ndif-api-key")}), flush=True)
        asyncio.get_running_loop().call_later(0.05, lambda: asyncio.ensure_future(answer(envelope, blob)))
        received = ResponseModel(id="1", status=Status.RECEIVED)
        return web.Response(text=received.model_dump_json(), content_type="application/json")

    async def answer(envelope, blob):
        socket = sockets[envelope["session_id"]]
        try:
            if json.loads(envelope["model_key"].split(":", 1)[1])["repo_id"] != "far/tiny":
                raise ValueError("the model is not deployed")
            data = run(model, envelope, blob)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with a request is told to who sent it
            failed = ResponseModel(id="1", status=Status.ERROR, description=f"{type(error).__name__}: {error}")
            await socket.send_str(failed.model_dump_json())
            return
        await socket.send_bytes(ResponseModel(id="1", status=Status.COMPLETED, data=data).pickle())

    app = web.Application(client_max_size=1 << 30)
    app.add_routes([web.get("/subscribe", subscribe), web.post("/request", take)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site._server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))

"""A stand-in for TensorFlow Serving: its rules around a real SavedModel.

    python tests/stand_in_server.py EXPORT_DIR --name=ssd

prints {"rest": PORT, "grpc": PORT} when it answers. The model runs in a TF1
session, as there. Written, without the package, from TensorFlow Serving's
sources (json_tensor.cc, predict_util.cc, http_rest_api_util.cc); it has
neither their parser, nor the batching, nor the loading of versions.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import json

from stand_in_grpc import start_grpc
from stand_in_model import Behaviour, Served
from stand_in_rest import start_rest


@contextlib.contextmanager
def running(served, rest_port=0, grpc_port=0):
    """Ports of both; only that of REST without tensorflow-serving-api."""
    ports = {}
    served.stopped.clear()
    with contextlib.ExitStack() as stack:
        rest, ports["rest"] = start_rest(served, rest_port)
        stack.callback(rest.server_close)
        stack.callback(rest.shutdown)
        if importlib.util.find_spec("tensorflow_serving"):
            grpc, ports["grpc"] = start_grpc(served, grpc_port)
            stack.callback(lambda: grpc.stop(None).wait())
        stack.callback(served.stopped.set)
        yield ports


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("export_dir")
    parser.add_argument("--name", default="ssd")
    parser.add_argument("--rest_port", type=int, default=0)
    parser.add_argument("--grpc_port", type=int, default=0)
    for field in dataclasses.fields(Behaviour):
        kind = type(field.default) if field.default is not None else int
        parser.add_argument(f"--{field.name}", type=kind, default=field.default)
    flags = vars(parser.parse_args())
    export_dir, name, rest_port, grpc_port = (
        flags.pop(key)
        for key in ("export_dir", "name", "rest_port", "grpc_port")
    )
    served = Served(export_dir, name, Behaviour(**flags))
    with running(served, rest_port, grpc_port) as ports:
        print(json.dumps(ports), flush=True)
        served.stopped.wait()


if __name__ == "__main__":
    main()

"""The REST of the stand-in server (http_rest_api_util.cc)."""

import contextlib
import http.server
import json
import re
import threading

from google.protobuf import json_format
from stand_in_json import answer_of, inputs_of
from stand_in_model import DEFAULT, Refusal, Served

HTTP_STATUS = {
    **dict.fromkeys(
        ("INVALID_ARGUMENT", "FAILED_PRECONDITION", "OUT_OF_RANGE"), 400
    ),
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "UNIMPLEMENTED": 501,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}
PREDICT_PATH = r"/v1/models/([^/:]+)(?:/versions/(\d+))?:(predict)"
STATUS_PATH = r"/v1/models(?:/([^/:]+))?(?:/versions/(\d+))?(/metadata)?"


class RestHandler(http.server.BaseHTTPRequestHandler):
    """One connection; `serve` sets what is `served`."""

    protocol_version = "HTTP/1.1"  # connections stay open
    disable_nagle_algorithm = True
    served: Served

    def setup(self):
        super().setup()
        self.served.behaviour.connections += 1

    def log_message(self, *_):
        """Says nothing."""

    def do_GET(self):
        self._answer(self._get)

    def do_POST(self):
        self._answer(self._post)

    def _answer(self, make):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.served.takes("pages"):
            page = b"<html>Service Temporarily Unavailable</html>"
            return self._send(self.served.behaviour.page_status, page)
        if self.command == "POST" and self.served.takes("drops"):
            self.served.behaviour.predictions += 1
            self.close_connection = True
            return None
        try:
            status, content = 200, make(body)
        except Refusal as refusal:
            status = HTTP_STATUS.get(refusal.code, 500)
            content = {"error": str(refusal)}
        return self._send(status, json.dumps(content, indent=1).encode())

    def _send(self, status, data):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        pause = self.served.behaviour.trickle
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            step = 1 if pause else len(data)
            for start in range(0, len(data), step):
                self.wfile.write(data[start : start + step])
                self.served.stopped.wait(pause)

    def _matched(self, pattern):
        match = re.fullmatch(pattern, self.path, re.IGNORECASE)
        if not match or not match[1]:
            raise Refusal(f"Malformed request: {self.command} {self.path}")
        return match[1], int(match[2]) if match[2] else None, match[3]

    def _get(self, _):
        name, version, metadata = self._matched(STATUS_PATH)
        if metadata:
            return self._metadata(name, version)
        status = {"error_code": "OK", "error_message": ""}
        return {
            "model_version_status": [
                {"version": str(number), "state": state, "status": status}
                for number, state in self.served.states(name, version).items()
            ]
        }

    def _metadata(self, name, version):
        self.served.check_loaded(name, version)
        signatures = {
            key: json_format.MessageToDict(x, preserving_proto_field_name=True)
            for key, x in self.served.signatures.items()
        }
        return {
            "model_spec": {"name": name, "version": str(self.served.version)},
            "metadata": {"signature_def": {"signature_def": signatures}},
        }

    def _post(self, body):
        name, version, _ = self._matched(PREDICT_PATH)
        try:
            request = json.loads(body)
        except ValueError as error:
            raise Refusal(f"JSON Parse error: {error}") from error
        if not isinstance(request, dict):
            raise Refusal("JSON Value: Is not object")
        self.served.check_loaded(name, version)
        key = request.get("signature_name") or DEFAULT
        if key not in self.served.signatures:
            message = f'Serving signature name: "{key}" not found in signature'
            raise Refusal(f"{message} def")
        by_rows = "instances" in request
        if by_rows == ("inputs" in request):
            raise Refusal("expecting only one of 'inputs' or 'instances' keys")
        inputs = inputs_of(request, self.served.signatures[key].inputs)
        return answer_of(self.served.predict(key, inputs), by_rows)


def start_rest(served, port=0):
    """Starts a server in threads of this process; it and its port."""
    handler = type("Handler", (RestHandler,), {"served": served})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, server.server_port

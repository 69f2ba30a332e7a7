"""A camera in the network: a real MJPEG server on loopback, for whoever reads from one."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

Frame = NDArray[np.uint8]


class MjpegCamera:
    """A real MJPEG server on loopback: it draws, and can stall, hang up, refuse to answer, die and come back.

    `mode` is one of live, stall (the connection stays, frames do not come), mute (no answer at all).
    """

    def __init__(self, draw: Callable[[int], Frame]) -> None:
        """Remember what to show: a frame for each number."""
        self.draw, self.mode, self.connections, self._port = draw, "live", 0, 0
        self._over = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        """Return where it is seen."""
        return f"http://127.0.0.1:{self._port}/video.mjpg"

    def __enter__(self) -> Self:
        """Switch it on."""
        self.switch_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Switch it off."""
        self.switch_off()

    def switch_on(self) -> None:
        """Listen, at the same port as before."""
        self._over = over = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                """Keep the tests' output clean."""

            def do_GET(self) -> None:
                camera.connections += 1
                camera.send(self, over)

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="mjpeg", daemon=True).start()

    def switch_off(self) -> None:
        """Hang up on everybody, and listen no more."""
        self._over.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def send(self, request: BaseHTTPRequestHandler, over: threading.Event) -> None:
        """Answer with one frame after another."""
        while self.mode == "mute" and not over.wait(0.01):
            pass
        request.send_response(200)
        request.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        request.end_headers()
        number = 0
        while not over.wait(0.01):
            if self.mode == "stall":
                continue
            jpeg = cv2.imencode(".jpg", self.draw(number))[1].tobytes()
            part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg)
            number += 1
            try:
                request.wfile.write(part + jpeg + b"\r\n")
            except OSError:  # nobody looks any more
                return

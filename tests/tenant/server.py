"""The server on 127.0.0.1 that clients use as their proxy.

It terminates TLS itself, with certificates for the real host names. It sends nothing to other
machines.
"""

import http.server
import socket
import ssl
import threading
from urllib.parse import parse_qsl

import trustme

from .messages import Answer, Request


class Server:
    """A server that answers requests to the hosts with what answer(request) returns.

    Use it as a context manager. A client that asks for another host or port gets a 502.
    """

    def __init__(self, hosts, answer):
        self.hosts = hosts
        self.answer = answer
        self.authority = trustme.CA()
        self.connections = []  # "host:port" of each CONNECT.
        self.refusal = None  # The status and the reason phrase that refuse every request, if any.
        self.silent_hosts = set()  # A CONNECT to these hosts never gets an answer.
        self.closing = threading.Event()
        self.port = None  # The port that the server listens on.
        self._contexts = {}
        self._http_server = None

    def __enter__(self):
        self._http_server = _HttpServer(("127.0.0.1", 0), _Handler)
        self._http_server.owner = self
        self.port = self._http_server.server_port
        # With the default poll interval, each shutdown would take half a second.
        serve = self._http_server.serve_forever
        threading.Thread(target=serve, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc_info):
        self.closing.set()
        self._http_server.shutdown()
        self._http_server.server_close()

    def context(self, host):
        """Return an SSL context with a certificate for the host."""
        if host not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.authority.issue_cert(host).configure_cert(context)
            self._contexts[host] = context
        return self._contexts[host]


class _HttpServer(http.server.ThreadingHTTPServer):
    request_queue_size = 64  # Tests run many clients at once.


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection of a client. After a CONNECT, "host" is the host at its other end."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    host = None

    def handle(self):
        """Handle the connection until it ends. Ignore the error if the client breaks it."""
        try:
            super().handle()
        except OSError:
            pass  # Some tests stop clients on purpose.

    def do_CONNECT(self):
        server = self.server.owner
        host, _, port = self.path.lower().rpartition(":")
        server.connections.append("{}:{}".format(host, port))
        if host in server.silent_hosts:
            server.closing.wait()
            self.close_connection = True
            return
        if server.refusal:
            self._refuse(*server.refusal)
            return
        if host not in server.hosts or port != "443":
            self._refuse_host("{}:{}".format(host, port))
            return
        self.send_response(200)
        self.end_headers()
        context = server.context(host)
        self.connection = context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb")
        self.host = host
        # Before Python 3.12, http.client sends CONNECT as HTTP/1.0.
        self.close_connection = False

    def do_GET(self):
        if self.host is None:  # The client sent the request to the proxy without a CONNECT.
            self._refuse_host(self.path)
            return
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or "Transfer-Encoding" in self.headers:
            self._refuse(400, "The local tenant needs a number in Content-Length")
            return
        path, _, query = self.path.partition("?")
        request = Request(
            method=self.command,
            host=self.host,
            path=path,
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers=self.headers,
            body=self.rfile.read(int(length)),
        )
        self._send(self.server.owner.answer(request))

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _send(self, answer, phrase=None):
        """Send the answer, and break it in the way that its fault names."""
        if answer.fault == "silence":
            self.server.owner.closing.wait()
        if answer.fault:
            self.close_connection = True
        if answer.fault in ("silence", "hang up"):
            return
        self.send_response(answer.status, phrase)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        body = answer.body
        if answer.fault:
            body = body[: len(body) // 2]
        self.wfile.write(body)
        self.wfile.flush()
        if hasattr(socket, "TCP_QUICKACK"):
            # Acknowledge the next request's headers at once. Otherwise, MSAL sends the body of a
            # POST request 40 ms later.
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _refuse_host(self, name):
        """Refuse the connection because the local tenant doesn't have this host or port."""
        hosts = ", ".join(self.server.owner.hosts)
        text = "It has only these hosts, with https on port 443: {}.".format(hosts)
        self._refuse(502, "The local tenant does not have {}".format(name), text)

    def _refuse(self, status, phrase, text=""):
        """Refuse the connection. Some clients show only the reason phrase in the status line."""
        self.close_connection = True
        body = "{}. {}\n".format(phrase, text).encode()
        self._send(Answer(status, body, {"Content-Type": "text/plain; charset=utf-8"}), phrase)

    def finish(self):
        try:
            super().finish()
            # The HTTP server knows only the socket under the TLS connection.
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # The client has already closed it.
        self.connection.close()

    def log_message(self, *args):
        """Log nothing."""

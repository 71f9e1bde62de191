"""The proxy: HTTPS_PROXY leads clients here, and for them it is the host that they ask for.

It ends TLS itself, with certificates of its own authority for the real names, hands each request
on to be answered, and breaks the wire where an answer says so.
"""

import http.server
import json
import socket
import socketserver
import ssl
import sys
import threading
from collections import namedtuple
from urllib.parse import parse_qsl, urlsplit

import trustme

Request = namedtuple("Request", "method host path query headers body")
Request.form = property(lambda self: dict(parse_qsl(self.body.decode())))

Answer = namedtuple("Answer", "status body headers fault", defaults=(200, b"", {}, None))
SILENCE = Answer(fault="silence")  # Says nothing, and keeps the connection open.
HANG_UP = Answer(fault="hang up")  # Closes the connection without an answer.


def cut_off(answer):
    """Return the answer, to be broken off in the middle of its body."""
    return answer._replace(fault="cut off")


def garbled(answer):
    """Return the answer, with what is no TLS in the middle of its body."""
    return answer._replace(fault="garbled")


def json_answer(body, status=200, **headers):
    """Return the body as a JSON answer."""
    headers.setdefault("Content-Type", "application/json; charset=utf-8")
    return Answer(status, json.dumps(body, ensure_ascii=False).encode(), headers)


class Proxy:
    """The proxy as a context manager, at ``url``: each request is answered by ``answer(request)``.

    ``hosts`` are those that it stands for; whoever asks for another gets a 502.
    """

    def __init__(self, hosts, answer):
        self.hosts, self.answer = hosts, answer
        self.authority = trustme.CA()
        self.connections = []  # The hosts that were connected to.
        self.refusal = None  # The status and phrase with which it lets nobody through.
        self.silent_hosts = set()  # The way to these leads nowhere, and nobody says so.
        self.closing = threading.Event()
        self._contexts = {}

    def __enter__(self):
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.url = "http://127.0.0.1:{}".format(self._server.server_address[1])
        # The default poll interval would make each shutdown wait for half a second.
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc_info):
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def context(self, host):
        """Return the TLS context with which the proxy is the host."""
        if host not in self._contexts:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.authority.issue_cert(host).configure_cert(context)
            self._contexts[host] = context
        return self._contexts[host]


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def handle_error(self, request, client_address):
        """Say nothing of clients that break off, which is what tests do, but show a bug of ours."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    host = None

    def do_CONNECT(self):
        proxy, self.host = self.server.proxy, self.path.rpartition(":")[0].lower()
        proxy.connections.append(self.host)
        if self.host in proxy.silent_hosts:
            proxy.closing.wait()
            return
        if proxy.refusal or self.host not in proxy.hosts:
            self.refuse("https://" + self.host)
            return
        self.send_response(200)
        self.end_headers()
        self.connection = proxy.context(self.host).wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb")
        # Before Python 3.12, http.client's CONNECT arrives as HTTP/1.0.
        self.close_connection = False

    def do_request(self):
        proxy, url = self.server.proxy, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.host is None:  # Plain HTTP, which none of the hosts speaks.
            self.refuse("http://{}".format(url.hostname))
            return
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        answer = proxy.answer(Request(self.command, self.host, url.path, query, self.headers, body))
        if answer.fault == "silence":
            proxy.closing.wait()
        if answer.fault in ("silence", "hang up"):
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        half = len(answer.body) // 2 if answer.fault else len(answer.body)
        self.wfile.write(answer.body[:half])
        self.wfile.flush()
        if answer.fault == "garbled":
            # Around TLS, on purpose: SSLSocket's own send() would encrypt it.
            socket.socket.send(self.connection, b"This is no TLS record.")
        self.close_connection = self.close_connection or bool(answer.fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_request

    def refuse(self, asked):
        """Let nobody through; the phrase says why, because some clients show nothing else."""
        nobody = 502, "the local tenant does not stand for {}".format(asked)
        status, said = self.server.proxy.refusal or nobody
        hosts = ", ".join("https://" + host for host in self.server.proxy.hosts)
        body = "{}; it stands for {}\n".format(said, hosts).encode()
        self.close_connection = True
        self.send_response(status, said)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def finish(self):
        super().finish()
        # An end of its own: the server only knows the socket under the TLS connection.
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.connection.close()

    def log_message(self, *args):
        pass

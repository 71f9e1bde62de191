"""A Microsoft 365 tenant on 127.0.0.1.

Programs succeed and fail against it just as they do against a real tenant. Each service has its own
module: entra.py, adfs.py, and graph.py. They share directory.py. server.py receives the requests.
scenarios.py changes what the services answer.
"""

import os
import re
import tempfile

from .adfs import Adfs
from .directory import Directory
from .entra import Entra
from .graph import Graph
from .messages import json_answer
from .server import Server

STEPS = ("discovery", "instance", "realm", "mex", "wstrust", "token", "devicecode", "graph")


class LocalTenant:
    """The tenant that a parameters file describes. Use it as a context manager.

    Tests and scenarios change the attributes of "directory", "entra", and "graph", or replace the
    answers of one step. "requests" lists each request with its step: (step, Request).
    """

    def __init__(self, config):
        self.directory = Directory(config)
        self.entra = Entra(self.directory)
        self.adfs = Adfs(self.directory)
        self.graph = Graph(self.directory)
        self.services = {}
        for service in (self.entra, self.adfs, self.graph):
            for host in service.hosts:
                self.services[host] = service
        self.server = Server(list(self.services), self.answer)
        self.proxy = "http://127.0.0.1:{port}"  # The proxy in environment().
        # The contents of the certificate file in environment(). None means the right certificate.
        # b"" means that there's no file.
        self.ca_file = None
        self.delay = 0  # Seconds before each answer.
        self.requests = []
        self._answers = {}

    def replace(self, step, *answers, then_happy=False):
        """Give these answers to the next requests of the step.

        Each answer is an Answer or a function of the Request. The last one repeats forever. If
        then_happy is true, it doesn't repeat, and the service then answers normally. Raises
        ValueError if there's no such step.
        """
        if step not in STEPS:
            raise ValueError("there's no step {!r}, only {}".format(step, ", ".join(STEPS)))
        self._answers[step] = (list(answers), then_happy)

    def steps(self):
        """Return the steps of the requests so far, in order."""
        return [step for step, _ in self.requests]

    def grants(self):
        """Return the grant types of the token requests so far, in order."""
        forms = [request.form for step, request in self.requests if step == "token"]
        return [form.get("grant_type") for form in forms]

    def answer(self, request):
        """Record the request, and return the Answer to it."""
        service = self.services[request.host]
        step = find_step(service.routes, request)
        self.requests.append((step, request))
        self.server.closing.wait(self.delay)
        if step is None:
            text = "The local tenant doesn't implement {} https://{}{}."
            text = text.format(request.method, request.host, request.path)
            return json_answer({"error": "not_implemented", "error_description": text}, 501)
        answers, then_happy = self._answers.get(step, ([], True))
        if not answers:
            return getattr(service, "on_" + step)(request)
        answer = answers[0]
        if then_happy or len(answers) > 1:
            answers.pop(0)
        if callable(answer):
            answer = answer(request)
        return answer

    def __enter__(self):
        self.server.__enter__()
        self._folder = tempfile.TemporaryDirectory()
        self._bundle = os.path.join(self._folder.name, "ca.pem")
        contents = self.ca_file
        if contents is None:
            contents = self.server.authority.cert_pem.bytes()
        if contents:
            with open(self._bundle, "wb") as bundle:
                bundle.write(contents)
        return self

    def __exit__(self, *exc_info):
        self.server.__exit__(*exc_info)
        self._folder.cleanup()

    def environment(self):
        """Return environment variables that direct a program to this tenant."""
        env = {name: os.environ[name] for name in os.environ if name.lower() != "no_proxy"}
        proxy = self.proxy.format(port=self.server.port)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            # In most programs, lowercase names take precedence. curl ignores an uppercase
            # HTTP_PROXY.
            env[name] = proxy
            env[name.lower()] = proxy
        for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            env[name] = self._bundle
        env["NODE_EXTRA_CA_CERTS"] = self._bundle
        env["NODE_USE_ENV_PROXY"] = "1"
        return env


def find_step(routes, request):
    """Return the step of the route that matches the method and the path, or None."""
    text = "{} {}".format(request.method, request.path)
    for pattern, step in routes:
        if re.fullmatch(pattern, text, re.IGNORECASE):
            return step
    return None

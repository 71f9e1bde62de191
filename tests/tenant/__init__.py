"""A Microsoft 365 tenant on 127.0.0.1, to see a program work, and fail, without a real one.

Each service has a room of its own: entra.py, adfs.py, graph.py. They share directory.py. In front
of them stands proxy.py, and scenarios.py changes what they say.
"""

import os
import tempfile

import trustme

from .adfs import Adfs
from .directory import Directory
from .entra import Entra
from .graph import Graph
from .proxy import Answer, Proxy


class LocalTenant:
    """The tenant of these parameters, as a context manager.

    A test or a scenario changes the attributes of ``directory``, ``entra`` and ``graph``, or
    ``replace``s the answer of one step: discovery, instance, realm, mex, wstrust, token or graph.
    ``requests`` has what was received, as pairs of the step and the request.
    """

    def __init__(self, config):
        self.directory = Directory(config)
        self.entra = Entra(self.directory)
        self.adfs = Adfs(self.directory)
        self.graph = Graph(self.directory)
        self.services = {
            host: service
            for service in (self.entra, self.adfs, self.graph)
            for host in service.hosts
        }
        self.proxy = Proxy(list(self.services), self.answer)
        self.trusted = True  # Whether what runs against it knows its certificate authority.
        self.reachable = True  # Whether its proxy is where the environment says.
        self.delay = 0  # Seconds before each answer.
        self.requests = []
        self._answers = {}

    def replace(self, step, *answers, then_happy=False):
        """Let a step give these answers in turn: each an Answer, or a function of the request.

        The last one is given for ever, or if then_happy once, and then the step is as always.
        """
        self._answers[step] = list(answers), then_happy

    def steps(self):
        """Return the steps of the requests received, in order."""
        return [step for step, _ in self.requests]

    def grants(self):
        """Return the grant types of the token requests received, in order."""
        return [request.form["grant_type"] for step, request in self.requests if step == "token"]

    def answer(self, request):
        """Record the request and return the answer to it."""
        service = self.services[request.host]
        step = service.step_of(request.path)
        self.requests.append((step, request))
        self.proxy.closing.wait(self.delay)
        answers, then_happy = self._answers.get(step, ([], True))
        if answers:
            answer = answers.pop(0) if then_happy or len(answers) > 1 else answers[0]
            return answer(request) if callable(answer) else answer
        if step is None:
            return Answer(404, b"<html><body>Not Found</body></html>")
        return getattr(service, "on_" + step)(request)

    def __enter__(self):
        self.proxy.__enter__()
        self._folder = tempfile.TemporaryDirectory()
        self._bundle = os.path.join(self._folder.name, "ca.pem")
        known = self.proxy.authority if self.trusted else trustme.CA()
        known.cert_pem.write_to_path(self._bundle)
        return self

    def __exit__(self, *exc_info):
        self.proxy.__exit__(*exc_info)
        self._folder.cleanup()

    def environment(self):
        """Return the environment in which whatever honours it finds this tenant, and only it."""
        env = {k: v for k, v in os.environ.items() if k.lower() != "no_proxy"}
        proxy = self.proxy.url if self.reachable else "http://127.0.0.1:9"
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            # In the lower case too: it wins in most programs, and curl knows no HTTP_PROXY.
            env[name] = env[name.lower()] = proxy
        for name in (
            "REQUESTS_CA_BUNDLE",
            "CURL_CA_BUNDLE",
            "SSL_CERT_FILE",
            "NODE_EXTRA_CA_CERTS",
        ):
            env[name] = self._bundle
        return dict(env, NODE_USE_ENV_PROXY="1")

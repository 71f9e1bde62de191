"""The AD FS of a federated account, at sts.example.com: it checks the password.

MSAL first gets a MEX document, which names the endpoints. Then it sends the password through
WS-Trust, and gets a SAML assertion. Entra accepts the assertion in place of the password.
"""

import html
import re
import uuid

from .directory import ADFS, b64
from .messages import Answer

MEX = """\
<?xml version="1.0" encoding="utf-8"?>
<wsdl:definitions xmlns:wsdl="http://schemas.xmlsoap.org/wsdl/"
    xmlns:wsp="http://schemas.xmlsoap.org/ws/2004/09/policy"
    xmlns:wsa10="http://www.w3.org/2005/08/addressing"
    xmlns:soap12="http://schemas.xmlsoap.org/wsdl/soap12/"
    xmlns:sp="http://docs.oasis-open.org/ws-sx/ws-securitypolicy/200702"
    xmlns:wsu="http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd">
  <wsp:Policy wsu:Id="by_password"><wsp:ExactlyOne><wsp:All>
    <sp:TransportBinding/>
    <sp:SignedEncryptedSupportingTokens><wsp:Policy>
      <sp:UsernameToken><wsp:Policy><sp:WssUsernameToken10/></wsp:Policy></sp:UsernameToken>
    </wsp:Policy></sp:SignedEncryptedSupportingTokens>
  </wsp:All></wsp:ExactlyOne></wsp:Policy>
  <wsdl:binding name="ByPassword13">
    <wsp:PolicyReference URI="#by_password"/>
    <soap12:binding transport="http://schemas.xmlsoap.org/soap/http"/>
    <wsdl:operation name="Issue"><soap12:operation
        soapAction="http://docs.oasis-open.org/ws-sx/ws-trust/200512/RST/Issue"/></wsdl:operation>
  </wsdl:binding>
  <wsdl:service name="SecurityTokenService"><wsdl:port binding="ByPassword13">
    <wsa10:EndpointReference>
      <wsa10:Address>https://{adfs}/adfs/services/trust/13/usernamemixed</wsa10:Address>
    </wsa10:EndpointReference>
  </wsdl:port></wsdl:service>
</wsdl:definitions>
""".format(adfs=ADFS)

ASSERTION = """\
<saml:Assertion xmlns:saml='urn:oasis:names:tc:SAML:1.0:assertion'>{}</saml:Assertion>"""

RSTR = """\
<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"
    xmlns:t="http://docs.oasis-open.org/ws-sx/ws-trust/200512"><s:Body>
  <t:RequestSecurityTokenResponse>
    <t:RequestedSecurityToken>{assertion}</t:RequestedSecurityToken>
    <t:TokenType>urn:oasis:names:tc:SAML:1.0:assertion</t:TokenType>
  </t:RequestSecurityTokenResponse>
</s:Body></s:Envelope>
"""

SOAP_FAULT = """\
<s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope"><s:Body><s:Fault>
  <s:Code>
    <s:Value>s:Sender</s:Value>
    <s:Subcode><s:Value>a:FailedAuthentication</s:Value></s:Subcode>
  </s:Code>
  <s:Reason><s:Text xml:lang="en-US">ID3242: The security token could not be authenticated \
or authorized.</s:Text></s:Reason>
</s:Fault></s:Body></s:Envelope>
"""

SOAP = {"Content-Type": "application/soap+xml; charset=utf-8"}
WRONG_PASSWORD = Answer(500, SOAP_FAULT.encode(), SOAP)


class Adfs:
    """The AD FS service."""

    hosts = [ADFS]
    routes = [
        ("GET /adfs/services/trust/mex", "mex"),
        ("POST /adfs/services/trust/(13|2005)/usernamemixed", "wstrust"),
    ]

    def __init__(self, directory):
        self.directory = directory

    def on_mex(self, request):
        """Return the MEX document."""
        return Answer(200, MEX.encode(), SOAP)

    def on_wstrust(self, request):
        """Return an assertion, or a SOAP fault if the username or the password is wrong."""
        xml = request.body.decode("utf-8", "replace")
        username = _read_element("Username", xml)
        password = _read_element("Password", xml)
        right_username = username.lower() == self.directory.username.lower()
        if not right_username or not self.directory.accepts(password):
            return WRONG_PASSWORD
        secret = "assertion-" + uuid.uuid4().hex
        assertion = ASSERTION.format(secret)
        encoded = b64(assertion.encode())
        self.directory.assertions.add(encoded)
        self.directory.secrets.update([secret, encoded])
        return Answer(200, RSTR.format(assertion=assertion).encode(), SOAP)


def _read_element(name, xml):
    """Return the text of the named element in the WS-Security header, or "" if there's none."""
    match = re.search(r"<wsse:{0}\b[^>]*>(.*?)</wsse:{0}>".format(name), xml, re.DOTALL)
    if not match:
        return ""
    return html.unescape(match.group(1))

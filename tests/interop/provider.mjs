// An OpenID provider that nobody here wrote (npm's oidc-provider), strict: private_key_jwt with PS256 only, each
// assertion once, tokens as signed JWTs for a resource. HTTPS on loopback; ends when its standard input does.
//
// Standard input, first line: {"key", "certificate": PEM, "path": "/realms/x", "clients": {id: public JWK}}
// Standard output: one JSON line {"issuer"} when ready, then one for every refused request {"error", "detail"}.

import { createServer } from 'node:https';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

console.info = console.warn = console.error; // its notices, away from what the test reads

const RESOURCE = 'https://api.example.com';
const input = createInterface({ input: process.stdin });
const [line] = await once(input, 'line');
const { key, certificate, path, clients } = JSON.parse(line);
const say = (object) => process.stdout.write(`${JSON.stringify(object)}\n`);

let answer;
const server = createServer({ key, cert: certificate }, (request, response) => {
  request.originalUrl = request.url; // mounted below `path`, as a proxy or a framework would
  request.url = request.url.slice(path.length) || '/';
  answer(request, response);
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');

const issuer = `https://127.0.0.1:${server.address().port}${path}`;
const provider = new Provider(issuer, {
  clients: Object.entries(clients).map(([client_id, jwk]) => ({
    client_id,
    grant_types: ['client_credentials'],
    response_types: [],
    redirect_uris: [],
    token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: 'PS256',
    scope: 'read write',
    jwks: { keys: [jwk] },
  })),
  clientAuthMethods: ['private_key_jwt'],
  enabledJWA: { clientAuthSigningAlgValues: ['PS256'] },
  scopes: ['read', 'write', 'admin'],
  clockTolerance: 0,
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => RESOURCE,
      getResourceServerInfo: () => ({
        scope: 'read write',
        audience: RESOURCE,
        accessTokenTTL: 600,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
});
provider.on('grant.error', (context, error) => say({ error: error.error, detail: error.error_detail ?? null }));
provider.on('server_error', (context, error) => say({ error: 'server_error', detail: String(error.stack) }));
answer = provider.callback();
say({ issuer });

await once(input, 'close');
server.closeAllConnections();
server.close();

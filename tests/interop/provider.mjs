// An OpenID provider that nobody here wrote (npm's oidc-provider), strict: private_key_jwt with PS256 only, each
// assertion once, tokens as signed JWTs for a resource. HTTPS on loopback; ends when its standard input does.
//
// Standard input, first line: {"key", "certificate": PEM, "path": "/realms/x", "lifetime": seconds of a token,
// "clients": {id: public JWK}}; each further one, {"client": id, "jwk": public JWK}, registers another key.
// Standard output: one JSON line {"issuer"} when ready, then one for every refused request {"error", "detail"}, and
// one for every key that was registered {"registered": id}.

import { createServer } from 'node:https';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { Provider } from 'oidc-provider';

console.info = console.warn = console.error; // its notices, away from what the test reads

const RESOURCE = 'https://api.example.com';
const input = createInterface({ input: process.stdin });
const [line] = await once(input, 'line');
const { key, certificate, path, lifetime, clients } = JSON.parse(line);
const say = (object) => process.stdout.write(`${JSON.stringify(object)}\n`);

const keys = new Map(Object.entries(clients).map(([id, jwk]) => [id, [jwk]]));
input.on('line', (text) => {
  const { client, jwk } = JSON.parse(text);
  keys.get(client).push(jwk);
  say({ registered: client });
});

// Clients are looked up at each request, so that their keys may change; all else is kept in memory.
const stored = new Map();
class Adapter {
  constructor(name) { this.name = name; }

  async find(id) {
    if (this.name !== 'Client') return stored.get(`${this.name}:${id}`);
    return keys.has(id) ? registration(id) : undefined;
  }

  async upsert(id, payload) { stored.set(`${this.name}:${id}`, payload); }
}

const registration = (id) => ({
  client_id: id,
  grant_types: ['client_credentials'],
  response_types: [],
  redirect_uris: [],
  token_endpoint_auth_method: 'private_key_jwt',
  token_endpoint_auth_signing_alg: 'PS256',
  scope: 'read write',
  jwks: { keys: keys.get(id) },
});

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
  adapter: Adapter,
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
        accessTokenTTL: lifetime,
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

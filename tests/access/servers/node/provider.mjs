// An OpenID provider for the tests: oidc-provider, with the device flow and its own plain pages.
// Argument: a JSON file with what oidc_provider.py says. It keeps everything in memory, so that a
// restart forgets all logins, as a provider does that lost its database.
import { readFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';

const settings = JSON.parse(await readFile(process.argv[2], 'utf8'));
const { default: Provider } = await import(pathToFileURL(settings.module));

const provider = new Provider(settings.issuer, {
  jwks: { keys: settings.keys },
  cookies: { keys: ['of no use to anybody'] },
  clients: [{
    client_id: settings.client,
    token_endpoint_auth_method: 'none',
    application_type: 'native',
    grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
    redirect_uris: [],
    response_types: [],
  }],
  features: {
    devInteractions: { enabled: true },
    deviceFlow: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (_context, audience) => ({
        audience,
        scope: '',
        accessTokenFormat: 'jwt',
        accessTokenTTL: settings.lifetime,
        jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  // A refresh token is good once; its second use ends the whole login.
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  ttl: { Session: 3600, Grant: 3600, Interaction: 600, DeviceCode: 600, RefreshToken: 3600 },
});
provider.listen(settings.port, '127.0.0.1');

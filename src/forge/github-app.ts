import { createPrivateKey, sign } from 'node:crypto';
import { z } from 'zod';
import { below, CountersignError, httpAddress } from '../model/index.ts';
import { ask } from './ask.ts';

const LIFE_SECONDS = 540; // GitHub accepts ten minutes at most
const SLOW_CLOCK_SECONDS = 60; // GitHub's own advice

/**
 * Returns a token of a GitHub App's installation, which can fetch for an hour. Throws `key-unusable`,
 * `forge-unreachable`, `forge-refused`.
 */
export async function githubAppToken(
  app: { readonly appId: string; readonly installationId: string; readonly apiUrl: string },
  privateKeyPem: string,
  now: Date,
): Promise<{ readonly token: string; readonly expiresAt: number }> {
  const seconds = Math.floor(now.getTime() / 1000);
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  const signed =
    `${part({ alg: 'RS256', typ: 'JWT' })}.` +
    `${part({ iat: seconds - SLOW_CLOCK_SECONDS, exp: seconds + LIFE_SECONDS, iss: app.appId })}`;
  const { value } = await ask(
    {
      to: below(httpAddress(app.apiUrl), `/app/installations/${app.installationId}/access_tokens`),
      method: 'POST',
      headers: {
        accept: 'application/vnd.github+json',
        'x-github-api-version': '2022-11-28',
        authorization: `Bearer ${signed}.${signature(signed, privateKeyPem)}`,
      },
    },
    z.object({ token: z.string().regex(/^[\x20-\x7e]{1,4096}$/), expires_at: z.iso.datetime({ offset: true }) }),
  );
  return { token: value.token, expiresAt: Date.parse(value.expires_at) };
}

function signature(text: string, pem: string): string {
  try {
    return sign('sha256', Buffer.from(text), createPrivateKey(pem)).toString('base64url');
  } catch (cause) {
    throw new CountersignError('key-unusable', 'the private key of the GitHub App cannot be used', {
      cause,
      hint: 'use the PEM file from GitHub',
    });
  }
}

import { readFileSync } from 'node:fs';
import { githubAppToken } from '../forge/index.ts';
import type { GitAccess } from '../git/index.ts';
import { CountersignError, type SourceCredentials } from '../model/index.ts';

const RENEW_MS = 5 * 60_000;

/**
 * Returns credentials for a source, read again for each fetch so that files can be rotated. A GitHub App's token is
 * kept until shortly before it expires. Throws `key-missing`, which names the file but never quotes it.
 */
export function sourceAccess(credentials: SourceCredentials | undefined): () => Promise<GitAccess> {
  let token: { token: string; expiresAt: number } | undefined;
  return async () => {
    if (credentials === undefined) return {};
    const { username, passwordFile, sshKeyFile, knownHostsFile, caFile, githubApp } = credentials;
    if (githubApp !== undefined && (token === undefined || token.expiresAt - RENEW_MS < Date.now()))
      token = await githubAppToken(githubApp, readSecret(githubApp.privateKeyFile), new Date());
    return {
      username: githubApp === undefined ? username : 'x-access-token',
      password: token?.token ?? (passwordFile === undefined ? undefined : readSecret(passwordFile).trim()),
      caFile,
      ca: caFile === undefined ? undefined : readSecret(caFile),
      sshKeyFile,
      knownHostsFile,
    };
  };
}

function readSecret(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new CountersignError('key-missing', `the credentials file \`${file}\` cannot be read`, {
      cause,
      hint: 'check that it is mounted and readable',
      recover: 'retry',
    });
  }
}

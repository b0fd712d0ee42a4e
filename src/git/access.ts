/** Credentials for a remote. The values are in memory, read from their files at each fetch. Never logged. */
export type GitAccess = {
  /** For HTTP; forges accept any user name with a token. */
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** Certificates (PEM) of an HTTPS server's authority, and the file they came from. */
  readonly ca?: string | undefined;
  readonly caFile?: string | undefined;
  readonly sshKeyFile?: string | undefined;
  readonly knownHostsFile?: string | undefined;
};

/**
 * Returns the environment that passes credentials to the `git` program, for this server only. Arguments would be
 * visible to every process on the machine. SSH trusts only the host key in `knownHostsFile`.
 */
export function accessEnvironment(url: string, access: GitAccess): Record<string, string> {
  const settings: [string, string][] = [];
  if (/^https?:\/\//i.test(url)) {
    const { origin } = new URL(url);
    // credentials are for one server only, and git would send the header to a redirect's target
    settings.push(['http.followRedirects', 'false']);
    if (access.password !== undefined) {
      const basic = Buffer.from(`${access.username ?? 'git'}:${access.password}`).toString('base64');
      settings.push([`http.${origin}/.extraHeader`, `Authorization: Basic ${basic}`]);
    }
    if (access.caFile !== undefined) settings.push([`http.${origin}/.sslCAInfo`, access.caFile]);
  }
  const entries = settings.flatMap(([key, value], i) => [
    [`GIT_CONFIG_KEY_${i}`, key],
    [`GIT_CONFIG_VALUE_${i}`, value],
  ]);
  return {
    ...Object.fromEntries(entries),
    GIT_CONFIG_COUNT: String(settings.length),
    GIT_SSH_COMMAND: sshCommand(access),
  };
}

function sshCommand({ sshKeyFile, knownHostsFile }: GitAccess): string {
  const options = [
    'BatchMode=yes',
    'ConnectTimeout=30',
    'ServerAliveInterval=15',
    'ServerAliveCountMax=2',
    'StrictHostKeyChecking=yes',
    'GlobalKnownHostsFile=/dev/null',
    `UserKnownHostsFile=${quoted(knownHostsFile ?? '/dev/null')}`,
  ];
  if (sshKeyFile !== undefined)
    options.push('IdentitiesOnly=yes', 'IdentityAgent=none', `IdentityFile=${quoted(sshKeyFile)}`);
  return ['ssh', '-F', '/dev/null', ...options.flatMap((o) => ['-o', shell(o)])].join(' ');
}

// ssh_config(5) allows double quotes around a path; git passes the command to a shell.
function quoted(path: string): string {
  return `"${path.replaceAll('"', '')}"`;
}

function shell(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

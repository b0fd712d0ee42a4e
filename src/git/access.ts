/** How to get into a remote. Values, not files: whoever opens a repository reads them at each fetch. Never logged. */
export type GitAccess = {
  /** For HTTP; forges take any name beside a token. */
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** Certificates (PEM) of the authority of an HTTPS server, and the file they came from. */
  readonly ca?: string | undefined;
  readonly caFile?: string | undefined;
  readonly sshKeyFile?: string | undefined;
  readonly knownHostsFile?: string | undefined;
};

/**
 * The environment that hands credentials to the `git` program: never as arguments, which every process of the machine
 * can read, and for this server only. SSH asks for the host key in `knownHostsFile` and believes no other.
 */
export function accessEnvironment(url: string, access: GitAccess): Record<string, string> {
  const settings: [string, string][] = [];
  if (/^https?:\/\//i.test(url)) {
    const { origin } = new URL(url);
    // whoever named a server named no other, and git would take the header along
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

// ssh_config(5) takes double quotes around a path; git hands the command to a shell.
function quoted(path: string): string {
  return `"${path.replaceAll('"', '')}"`;
}

function shell(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/**
 * Minor versions that Countersign supports, oldest first, with the release that tests run on. The programs in `tools/`,
 * docs/supported-versions.md and the warnings below agree with it (test/tools/versions.test.ts).
 */
export const SUPPORTED = {
  Kubernetes: { '1.34': '1.34.4', '1.35': '1.35.4', '1.36': '1.36.3', '1.37': '1.37.2' },
  Helm: { '3.19': '3.19.0', '4.3': '4.3.2' },
  Kustomize: { '5.7': '5.7.1', '5.8': '5.8.1' },
} as const;

export type Versioned = keyof typeof SUPPORTED;

/** A minor version of a program, such as `1.34`. */
export type MinorOf<P extends Versioned> = keyof (typeof SUPPORTED)[P] & string;

const UPGRADE: Readonly<Record<Versioned, string>> = {
  Kubernetes: 'upgrade the cluster',
  Helm: 'install a newer helm',
  Kustomize: 'install a newer kustomize',
};

/** Returns the oldest and the newest supported minor version of a program. */
export function supportedRange(program: Versioned): { readonly oldest: string; readonly newest: string } {
  const minors = Object.keys(SUPPORTED[program]);
  return { oldest: minors[0] as string, newest: minors.at(-1) as string };
}

/**
 * Returns why a version is outside of the supported range and what to do, in one line, or undefined if it is inside.
 * `where` names what runs it, such as "the API server at `https://…`"; `version` is how that states it.
 */
export function versionTrouble(program: Versioned, version: string, where: string): string | undefined {
  const { oldest, newest } = supportedRange(program);
  const minor = /^v?(\d{1,5}\.\d{1,5})/.exec(version)?.[1];
  if (minor === undefined)
    return (
      `${where} states no version of ${program} (\`${version.slice(0, 50)}\`): ` + `use one from ${oldest} to ${newest}`
    );
  if (compare(minor, oldest) < 0)
    return (
      `${where} is ${program} ${minor}, older than ${oldest}, the oldest supported version: ` +
      `${UPGRADE[program]} (docs/supported-versions.md)`
    );
  if (compare(minor, newest) > 0)
    return (
      `${where} is ${program} ${minor}, newer than ${newest}, the newest version that this release was tested with: ` +
      'upgrade countersign (docs/supported-versions.md)'
    );
  return undefined;
}

function compare(a: string, b: string): number {
  const [majorA = 0, minorA = 0] = a.split('.').map(Number);
  const [majorB = 0, minorB = 0] = b.split('.').map(Number);
  return majorA - majorB || minorA - minorB;
}

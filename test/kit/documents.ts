import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Environment } from '../../src/model/index.ts';
import type { Person } from './fleet.ts';

/** What differs from test to test in an environment. */
export type EnvironmentOptions = {
  readonly name?: string;
  readonly url: string;
  readonly namespaces: readonly string[];
  readonly path?: string;
  readonly interval?: string;
  readonly mode?: 'enforce' | 'warn' | 'audit' | 'off';
  readonly admission?: object;
  readonly parameters?: object;
  readonly clusterScoped?: Environment['spec']['target']['clusterScoped'];
  readonly holdFor?: string;
  readonly trust?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly policies?: object;
  /** Anything else of the spec. Without `health`, changes do not wait for controllers, which most tests do not have. */
  readonly spec?: Readonly<Record<string, unknown>>;
};

/** An Environment document. JSON is YAML. */
export function environmentDocument(o: EnvironmentOptions): object {
  return {
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'Environment',
    metadata: { name: o.name ?? 'production', ...(o.labels === undefined ? {} : { labels: o.labels }) },
    spec: {
      source: { url: o.url, branch: 'main', path: o.path ?? 'clusters/production', interval: o.interval ?? '500ms' },
      target: {
        namespaces: o.namespaces,
        ...(o.clusterScoped === undefined ? {} : { clusterScoped: o.clusterScoped }),
      },
      trust: o.trust ?? 'team',
      policies: { parameters: o.parameters ?? {}, ...o.policies },
      admission: {
        mode: o.mode ?? 'enforce',
        // Its writes pass the gate, so that a test can change what the cluster has.
        controllers: ['user:controller'],
        breakGlass: { groups: ['oncall'], holdFor: o.holdFor ?? '1h' },
        ...o.admission,
      },
      health: { wait: false },
      ...o.spec,
    },
  };
}

/** A TrustPolicy in which all people may sign and approve. */
export function trustDocument(
  people: readonly Person[],
  options: { required?: number; rules?: readonly object[]; name?: string; waivers?: object } = {},
): object {
  const names = people.map((p) => p.name);
  return {
    apiVersion: 'countersign.dev/v1alpha1',
    kind: 'TrustPolicy',
    metadata: { name: options.name ?? 'team' },
    spec: {
      principals: people.map((p) => ({
        name: p.name,
        emails: [p.email],
        keys: [p.format === 'ssh' ? { ssh: p.publicKey } : { openpgp: p.publicKey }],
      })),
      groups: [{ name: 'developers', members: names }],
      ...(options.waivers === undefined ? {} : { waivers: options.waivers }),
      rules: options.rules ?? [
        {
          name: 'everything',
          signers: ['developers'],
          approvals: { required: options.required ?? 1, from: ['developers'] },
        },
      ],
    },
  };
}

/** Writes documents as files of a configuration directory, and gives the directory. */
export function writeConfiguration(directory: string, documents: readonly object[]): string {
  mkdirSync(directory, { recursive: true });
  documents.forEach((document, i) => {
    writeFileSync(join(directory, `${i}.yaml`), JSON.stringify(document, null, 2));
  });
  return directory;
}

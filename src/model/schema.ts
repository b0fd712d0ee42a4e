import { z } from 'zod';

/** The one schema of Countersign's documents: types, validation and, from them, reference docs all come from here. */
const API_VERSION = 'countersign.dev/v1alpha1';

const name = z
  .string()
  .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'a lower-case name of letters, digits and dashes, at most 63 long')
  .describe('A name: lower-case letters, digits and dashes.');

const duration = z
  .string()
  .regex(/^\d+(ms|s|m|h|d)$/, 'a duration such as `30s`, `5m` or `1h`')
  .describe('A duration such as `30s`, `5m` or `1h`.');

const time = z.iso.datetime({ offset: true, error: 'a time such as `2026-01-31T00:00:00Z`' });

const key = z
  .strictObject({
    ssh: z.string().min(1).optional().describe('An OpenSSH public key line, for example `ssh-ed25519 AAAA…`.'),
    openpgp: z.string().min(1).optional().describe('An armored OpenPGP public key.'),
    openpgpFile: z.string().min(1).optional().describe('A file with an armored OpenPGP public key, relative to this document.'),
    validAfter: time.optional().describe('Signatures before this time do not count.'),
    validBefore: time.optional().describe('Signatures from this time on do not count.'),
  })
  .refine((k) => [k.ssh, k.openpgp, k.openpgpFile].filter((v) => v !== undefined).length === 1, {
    error: 'exactly one of `ssh`, `openpgp` and `openpgpFile`',
  });

const metadata = z.strictObject({ name });

export const trustPolicySchema = z.strictObject({
  apiVersion: z.literal(API_VERSION),
  kind: z.literal('TrustPolicy'),
  metadata,
  spec: z.strictObject({
    principals: z
      .array(
        z.strictObject({
          name,
          kind: z.enum(['person', 'platform']).default('person').describe('A platform (a forge, a bot) never counts as a person.'),
          emails: z.array(z.string().min(3)).default([]).describe('Addresses this principal writes commits under.'),
          keys: z.array(key).min(1),
        }),
      )
      .min(1),
    groups: z.array(z.strictObject({ name, members: z.array(name).min(1) })).default([]),
    rules: z
      .array(
        z.strictObject({
          name,
          refs: z.array(z.string().min(1)).default(['**']).describe('Globs over branch names; `*` stays inside a segment, `**` does not.'),
          paths: z.array(z.string().min(1)).default(['**']).describe('Globs over the paths a change touches.'),
          signers: z.array(name).min(1).describe('Principals or groups that may sign commits.'),
          approvals: z
            .strictObject({
              required: z.int().min(0).max(20).describe('How many people must approve.'),
              from: z.array(name).default([]).describe('Principals or groups whose approval counts.'),
            })
            .prefault({ required: 1 }),
        }),
      )
      .min(1)
      .describe('Every rule that matches a touched path must hold; a path that no rule matches is refused.'),
  }),
});

export const environmentSchema = z.strictObject({
  apiVersion: z.literal(API_VERSION),
  kind: z.literal('Environment'),
  metadata,
  spec: z.strictObject({
    source: z.strictObject({
      url: z.string().min(1).describe('`https://…`, `http://…` or the path of a local repository.'),
      branch: z.string().min(1).default('main').describe('The branch that is followed.'),
      path: z.string().default('.').describe('The directory whose manifests this environment runs.'),
      interval: duration.default('30s').describe('How often to look.'),
      baseline: z
        .string()
        .regex(/^([0-9a-f]{40}|[0-9a-f]{64})$/, 'a full commit id')
        .optional()
        .describe('Commits up to this one are taken as they are; without it, the whole history is judged.'),
    }),
    target: z
      .strictObject({
        kubeconfig: z.string().optional().describe('A kubeconfig file; default: `--kubeconfig`, `KUBECONFIG`, or the pod’s own account.'),
        context: z.string().optional().describe('The context in it; default: its current one.'),
        namespaces: z.array(name).min(1).describe('The governed namespaces; objects anywhere else are refused.'),
        clusterScoped: z.array(z.string().min(1)).default(['Namespace']).describe('Cluster-scoped kinds this environment may own.'),
      })
      .describe('Where the objects run.'),
    trust: name.describe('The TrustPolicy that judges commits and approvals.'),
    policies: z
      .strictObject({
        bundle: z.string().optional().describe('A bundle of your own (`.tar.gz`), relative to this document; default: the shipped one.'),
        parameters: z.record(z.string(), z.unknown()).default({}).describe('What the rules read as `input.parameters`.'),
      })
      .prefault({}),
    admission: z
      .strictObject({
        mode: z.enum(['enforce', 'audit', 'off']).default('enforce'),
        controllers: z
          .array(z.string().min(1))
          .default([
            'group:system:nodes',
            'group:system:serviceaccounts:kube-system',
            'user:system:kube-controller-manager',
            'user:system:kube-scheduler',
          ])
          .describe('Identities of the cluster’s own machinery, `user:NAME` or `group:NAME`.'),
        breakGlass: z
          .strictObject({
            groups: z.array(z.string().min(1)).default([]).describe('Kubernetes groups whose members may use break-glass.'),
            holdFor: duration.default('1h').describe('The longest time it stands.'),
          })
          .prefault({})
          .describe('Who may act outside the gate, and how long what they did is left alone.'),
      })
      .prefault({}),
  }),
});

export type Environment = z.infer<typeof environmentSchema>;
export type TrustPolicy = z.infer<typeof trustPolicySchema>;
export type Document = Environment | TrustPolicy;

/** Milliseconds of a schema duration such as `30s`. */
export function durationMs(text: string): number {
  const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
  const match = /^(\d+)(ms|s|m|h|d)$/.exec(text);
  if (match === null) throw new RangeError(`\`${text}\` is not a duration`);
  return Number(match[1]) * unit[match[2] as keyof typeof unit];
}

/** Milliseconds of a duration that came from outside, or undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  return /^\d{1,9}(ms|s|m|h|d)$/.test(text) ? durationMs(text) : undefined;
}

import { z } from 'zod';
import { GROUP, isKind, KIND, NAME_PATTERN, rightSpelling } from './cluster-scope.ts';
import { isCron } from './cron.ts';
import { field, shapedBy } from './field.ts';
import { injectionSchema } from './injection.ts';
import { REFERENCE_NAME } from './substitute-text.ts';

/** The one schema of Countersign's documents: types, validation and reference docs are all derived from it. */
const API_VERSION = 'countersign.dev/v1alpha1';

const name = shapedBy(
  'file', // names of report directories and leases use it
  /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
  'a lower-case name of letters, digits and dashes, at most 63 long',
).describe('A name: lower-case letters, digits and dashes.');

const duration = z
  .string('a duration such as `120s`')
  .regex(/^\d+(ms|s|m|h|d)$/, 'a duration such as `30s`, `5m` or `1h`')
  .describe('A duration such as `30s`, `5m` or `1h`.');

const cron = z.string().min(9).max(100).refine(isCron, 'a five-field cron schedule that is due at some time');

const clusterScope = z.union(
  [
    z
      .string()
      .max(317)
      .refine(isKind, {
        error: ({ input }) => {
          const right = rightSpelling(String(input));
          return right === undefined
            ? 'a kind as in a manifest: `ClusterRole`, or with its group `ClusterRole.rbac.authorization.k8s.io`'
            : `the spelling \`${right}\``;
        },
      }),
    z.strictObject({
      kind: z
        .string()
        .regex(KIND, 'the kind alone, as in a manifest, with its group under `group`')
        .describe('The kind, spelled as in a manifest.'),
      group: z
        .string()
        .max(253)
        .regex(GROUP, 'the group without a version: `apiextensions.k8s.io`')
        .optional()
        .describe('Its group; default: any.'),
      names: z
        .array(z.string().regex(NAME_PATTERN, 'a name, in which only `*` is a wildcard'))
        .min(1)
        .max(100)
        .describe(
          'Names or patterns: `shop-*`, `*.example.com`. `*` stands for any characters; the whole name must match.',
        ),
    }),
  ],
  { error: 'a kind such as `ClusterRole`, or `kind` with `names`' },
);

const commitId = shapedBy('argument', /^([0-9a-f]{40}|[0-9a-f]{64})$/, 'a full commit id');

const login = shapedBy(
  'argument',
  /^(?!-)[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}:]{1,256}$/u,
  'a name without colons and control characters',
);

const timeZone = shapedBy('argument', /^[A-Za-z0-9][A-Za-z0-9_+/-]{0,63}$/, 'an IANA time zone').refine(
  isTimeZone,
  'an IANA time zone',
);

const time = z.iso.datetime({ offset: true, error: 'a time such as `2026-01-31T00:00:00Z`' });

const revoked = z
  .strictObject({
    at: time.describe('When it was revoked.'),
    reason: z
      .enum(['compromised', 'superseded', 'retired'])
      .describe('`superseded` and `retired` end the key at `at`; `compromised` also revokes everything older.'),
    compromisedSince: time
      .optional()
      .describe('Commits the ledger saw before this time still count under a compromised key.'),
  })
  .describe('The key was revoked.');

const pem = z.string().min(1).max(1_000_000);

const key = z
  .strictObject({
    ssh: z
      .string()
      .min(1)
      .max(16_384)
      .optional()
      .describe('An OpenSSH public key line, for example `ssh-ed25519 AAAA…`.'),
    openpgp: pem.optional().describe('An armored OpenPGP public key; several exports of one key over time are merged.'),
    openpgpFile: field.file.optional().describe('A file with armored OpenPGP public keys, relative to this document.'),
    validAfter: time.optional().describe('Signatures before this time do not count.'),
    validBefore: time.optional().describe('Signatures from this time on do not count.'),
    revoked: revoked.optional(),
    requireTouch: z.boolean().optional().describe('A hardware key must be touched for each signature.'),
    requirePin: z
      .boolean()
      .optional()
      .describe('A hardware key must ask for its PIN or fingerprint for each signature.'),
  })
  .refine((k) => [k.ssh, k.openpgp, k.openpgpFile].filter((v) => v !== undefined).length === 1, {
    error: 'exactly one of `ssh`, `openpgp` and `openpgpFile`',
  });

const SSH_KEY_TYPES = [
  'ssh-ed25519',
  'ecdsa-sha2-nistp256',
  'ecdsa-sha2-nistp384',
  'ecdsa-sha2-nistp521',
  'ssh-rsa',
  'sk-ssh-ed25519@openssh.com',
  'sk-ecdsa-sha2-nistp256@openssh.com',
] as const;

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
          kind: z
            .enum(['person', 'bot', 'platform'])
            .default('person')
            .describe(
              'A `bot` signs its own work. A `platform` (a forge’s own key) signs for ' +
                'any user who pressed its button. Neither is a person, and neither approves.',
            ),
          emails: z.array(z.string().min(3)).default([]).describe('Addresses this principal writes commits under.'),
          forgeAccounts: z
            .array(
              z.strictObject({
                forge: field.host.describe('The forge’s host, for example `github.com`.'),
                id: z
                  .string()
                  .regex(/^\d+$/, 'the account’s number')
                  .describe('The number of the account there; names can be taken over, numbers cannot.'),
                login: z.string().optional().describe('Its name there, for readers.'),
              }),
            )
            .default([])
            .describe('Accounts whose imported reviews count as this person’s.'),
          identities: z
            .array(
              z.strictObject({
                issuer: z.string().min(1).describe('The identity provider, for example `https://accounts.google.com`.'),
                subject: z.string().min(1).describe('The complete address or URI in the certificate.'),
                validAfter: time.optional(),
                validBefore: time.optional(),
                revoked: revoked.optional(),
              }),
            )
            .default([])
            .describe(
              'Identities in Sigstore certificates (gitsign) that ' +
                'belong to this principal; they count only with `sigstore`.',
            ),
          imports: z
            .array(field.host)
            .default([])
            .describe('Forges (hosts) whose reviews this bot may import and sign; see `countersign approvals import`.'),
          keys: z
            .array(key)
            .default([])
            .describe('Keys of this principal; may be empty if certificates or allowed signers identify them.'),
        }),
      )
      .min(1),
    groups: z.array(z.strictObject({ name, members: z.array(name).min(1) })).default([]),
    rules: z
      .array(
        z.strictObject({
          name,
          environments: z.array(z.string().min(1)).default(['**']).describe('Globs over environment names.'),
          refs: z
            .array(z.string().min(1))
            .default(['**'])
            .describe('Globs over branch names; `*` stays inside a segment, `**` does not.'),
          paths: z.array(z.string().min(1)).default(['**']).describe('Globs over the paths a change touches.'),
          signers: z.array(name).min(1).describe('Principals or groups that may sign commits.'),
          approvals: z
            .strictObject({
              required: z.int().min(0).max(20).describe('How many people must approve.'),
              from: z.array(name).default([]).describe('Principals or groups whose approval counts.'),
              equivalent: z
                .boolean()
                .default(false)
                .describe('Whether an approval still counts if the base changed, but only in other files.'),
              forgeReviews: z
                .enum(['half', 'whole', 'none'])
                .default('half')
                .describe('Weight of an imported forge review of this very commit; `half`: two make one approval.'),
            })
            .prefault({ required: 1 }),
        }),
      )
      .min(1)
      .describe('Every rule that matches a changed path must hold; a path that no rule matches is refused.'),
    certificateAuthorities: z
      .array(
        z.strictObject({
          name,
          ssh: z.string().min(1).max(16_384).describe('The authority’s OpenSSH public key line.'),
          principals: z
            .string()
            .min(1)
            .describe('Names it may certify: patterns with `*`, `?` and `!`, for example `*@example.com`.'),
          validAfter: time.optional(),
          validBefore: time.optional(),
          revoked: revoked.optional(),
        }),
      )
      .default([])
      .describe(
        'SSH certificate authorities; a name in a certificate must be a principal’s name or one of its addresses.',
      ),
    allowedSigners: z
      .string()
      .optional()
      .describe('Lines in the format of OpenSSH’s allowed_signers; the addresses of each must identify one principal.'),
    allowedSignersFile: field.file.optional().describe('The same in a file, relative to this document.'),
    sigstore: z
      .strictObject({
        trustedRoot: z
          .string()
          .min(1)
          .optional()
          .describe('A Sigstore trusted root as JSON: certificate authorities and logs.'),
        trustedRootFile: field.file.optional().describe('The same in a file, relative to this document.'),
        certificateLogs: z
          .int()
          .min(0)
          .max(10)
          .default(1)
          .describe('How many certificate transparency logs must have seen a certificate.'),
      })
      .refine((s) => (s.trustedRoot === undefined) !== (s.trustedRootFile === undefined), {
        error: 'exactly one of `trustedRoot` and `trustedRootFile`',
      })
      .optional()
      .describe(
        'Accept commits signed by gitsign in offline mode. Without ' +
          'this they are refused, and no code for them is loaded.',
      ),
    sshRevocations: z
      .string()
      .optional()
      .describe('Revoked SSH keys: public key lines, or a key revocation list (`ssh-keygen -k`) in base64.'),
    sshRevocationsFile: field.file
      .optional()
      .describe('The same in a file (binary or lines), relative to this document.'),
    algorithms: z
      .strictObject({
        minimumRsaBits: z.int().min(2048).max(16_384).default(3072).describe('RSA keys below this are refused.'),
        sshKeyTypes: z
          .array(z.enum(SSH_KEY_TYPES))
          .min(1)
          .default([...SSH_KEY_TYPES])
          .describe('SSH key types that count.'),
        requireTouch: z
          .boolean()
          .default(false)
          .describe('Accept only signatures for which a hardware key was touched.'),
        requirePin: z
          .boolean()
          .default(false)
          .describe('Accept only signatures for which a hardware key asked for its PIN or fingerprint.'),
      })
      .prefault({}),
    times: z
      .strictObject({
        skew: duration.default('5m').describe('How far honest clocks may differ.'),
        spread: duration
          .default('24h')
          .describe('How far an OpenPGP signature’s own time may differ from the commit’s.'),
        maximumAge: duration
          .optional()
          .describe('How old a commit may claim to be when it is first seen; default: any age.'),
      })
      .prefault({}),
    history: z
      .enum(['strict', 'merged'])
      .default('strict')
      .describe(
        '`strict`: every commit must be signed. `merged`: ' +
          'unsigned commits may come in through a merge that a person signed and others approved.',
      ),
    roots: z
      .strictObject({ members: z.array(name).min(1), threshold: z.int().min(1).max(20).default(1) })
      .optional()
      .describe(
        'Who must approve a change to this policy if it is kept ' +
          'in the repository (`spec.trustPath` of the Environment).',
      ),
    waivers: z
      .strictObject({
        from: z
          .array(name)
          .default([])
          .describe('Principals or groups whose signature waives a rule; if empty, no waiver counts.'),
        maximum: duration.default('90d').describe('How long a waiver may run from the day it is signed.'),
      })
      .prefault({}),
    images: z
      .strictObject({
        signers: z
          .array(
            z
              .strictObject({
                name: name.describe('Its name in rules.'),
                identity: z
                  .strictObject({
                    issuer: z
                      .string()
                      .min(1)
                      .describe('The identity provider, for example `https://token.actions.githubusercontent.com`.'),
                    subject: z
                      .string()
                      .min(1)
                      .describe('The address or URI in the certificate; `*` matches any part of it.'),
                  })
                  .optional()
                  .describe('In a certificate under `spec.sigstore`.'),
                key: z.string().min(1).max(16_384).optional().describe('A public key in PEM.'),
                log: z
                  .boolean()
                  .default(true)
                  .describe('A signature by a key needs an entry in a transparency log of `spec.sigstore`.'),
              })
              .refine((s) => (s.identity === undefined) !== (s.key === undefined), {
                error: 'exactly one of `identity` and `key`',
              }),
          )
          .min(1)
          .describe('Signers whose statements about container images rules may read as `input.images`.'),
      })
      .optional(),
    blocked: z
      .array(
        z.strictObject({
          payload: z.string().regex(/^[0-9a-f]{64}$/, 'a SHA-256 as `countersign provenance --output jsonl` prints it'),
          reason: z.string().min(1),
        }),
      )
      .default([])
      .describe(
        'Commits that never count, by the digest of the signed bytes: ' +
          'a commit’s id changes with the spelling of its signature.',
      ),
  }),
});

const signedBy = z
  .array(name)
  .min(1)
  .optional()
  .describe(
    'Principals or groups of the TrustPolicy, one of whom must have signed the bundle (`countersign policy sign`).',
  );
const leadsTo = z
  .array(field.host)
  .max(20)
  .optional()
  .describe(
    'Other hosts it may redirect to: its storage, and its token service ' +
      '(for Docker Hub `auth.docker.io`, which then gets the credentials).',
  );
const bundleSource = z.union(
  [
    z.strictObject({ library: z.literal('shipped').describe('The rules shipped with Countersign.') }),
    z.strictObject({
      file: field.file.describe('A bundle (`.tar.gz`), relative to this document.'),
      sha256: z
        .string()
        .regex(/^[0-9a-f]{64}$/, 'the digest that `countersign policy build` prints')
        .optional()
        .describe('The required digest.'),
      signedBy,
    }),
    z.strictObject({
      oci: field.image.describe('A bundle in a registry, pinned by the digest of its manifest.'),
      credentialsFile: field.file
        .optional()
        .describe('A file with `user:password` for the registry, relative to this document.'),
      caFile: field.file.optional().describe('Certificates (PEM) of the registry’s authority.'),
      leadsTo,
      signedBy,
    }),
    z.strictObject({
      path: field.path.describe('A bundle in the repository itself, at the revision being judged.'),
      signedBy,
    }),
    z.strictObject({
      repository: z.strictObject({
        url: field.gitSource.describe('Another Git repository.'),
        commit: commitId,
        branch: field.branch.default('main').describe('A branch that contains the commit.'),
        path: field.path.describe('Path of the bundle in it.'),
      }),
      signedBy,
    }),
  ],
  { error: 'one of `library`, `file`, `oci`, `path` and `repository`' },
);

export const waiverSchema = z.strictObject({
  apiVersion: z.literal(API_VERSION),
  kind: z.literal('Waiver'),
  metadata,
  spec: z.strictObject({
    rule: z.string().min(1).describe('The rule’s name, as in findings.'),
    environments: z.array(z.string().min(1)).min(1).default(['**']).describe('Globs over environment names.'),
    subjects: z
      .array(
        z
          .strictObject({
            kind: z.string().min(1).optional(),
            namespace: z.string().min(1).optional(),
            name: z.string().min(1).optional(),
            file: z.string().min(1).optional(),
          })
          .refine((s) => Object.values(s).some((v) => v !== undefined), {
            error: 'at least one of `kind`, `namespace`, `name` and `file`',
          }),
      )
      .min(1)
      .describe('Objects it applies to; every given field must match.'),
    reason: z.string().min(3),
    ticket: z.string().min(1).describe('Where the fix is tracked.'),
    issuedAt: time,
    until: z.iso.date().describe('The first day on which it no longer counts, in UTC.'),
  }),
  signature: z
    .string()
    .max(65_536)
    .optional()
    .describe('Created by `countersign policy waive`, over everything above and the repository.'),
});

const capabilities = {
  kubeVersion: shapedBy('argument', /^v?1\.\d{1,4}(\.\d{1,4})?$/, 'a version such as `1.34`')
    .default('1.34')
    .describe('Kubernetes version reported to charts; a verdict must not depend on the cluster that is reachable.'),
  apiVersions: z
    .array(
      shapedBy(
        'argument',
        /^[A-Za-z0-9][A-Za-z0-9.-]{0,252}(\/[A-Za-z0-9][A-Za-z0-9.-]{0,252}){0,2}$/,
        'an API version, or one with a kind',
      ),
    )
    .default([])
    .describe('More versions and kinds that charts may query.'),
};

const substitute = z
  .record(z.string().regex(REFERENCE_NAME, 'a name of letters, digits and underscores'), z.string().max(4096))
  .optional()
  .describe('Texts for `${NAME}` in values. With it, an undeclared name is an error, and `$${` stands for `${`.');

const amount = () => shapedBy('argument', /^[1-9]\d{0,4}[MG]i$/, 'a size such as `64Mi` or `1Gi`');

const LEAST_MEMORY = '128Mi'; // the rendering process does not start with less
const LEAST_MS = 1000;

const limits = z
  .strictObject({
    objects: z.int().min(1).max(100_000).default(20_000).describe('Objects.'),
    values: z
      .int()
      .min(1)
      .max(5_000_000)
      .default(1_000_000)
      .describe('Scalars, lists and mappings in them, with aliases expanded.'),
    size: amount().default('32Mi').describe('Bytes of the files, or characters of the objects, whichever is larger.'),
    memory: amount()
      .refine((text) => !(sizeInBytes(text) < sizeInBytes(LEAST_MEMORY)), `at least \`${LEAST_MEMORY}\``)
      .default('384Mi')
      .describe('Memory of the rendering process, which is ended above it. At least `128Mi`.'),
    time: duration
      .refine((text) => (parseDuration(text) ?? LEAST_MS) >= LEAST_MS, 'at least `1s`')
      .default('120s')
      .describe('Time for rendering, which is ended after it. At least `1s`.'),
  })
  .prefault({})
  .describe('Limits on rendering, all files together. Anything larger is denied.');

/** Default of `spec.render.limits`. */
export const DEFAULT_LIMITS = limits.parse(undefined);

const MODES = ['enforce', 'warn', 'audit', 'off'] as const;

/** Plugins of the API server that change pods, and are off unless a cluster switches them on. */
export const API_SERVER_PLUGINS = [
  'AlwaysPullImages',
  'PodNodeSelector',
  'PodTolerationRestriction',
  'ExtendedResourceToleration',
] as const;
export type ApiServerPlugin = (typeof API_SERVER_PLUGINS)[number];
const identity = z.string().regex(/^(user|group):.+$/, '`user:NAME` or `group:NAME`');
const operator = z.union(
  [
    identity,
    z.strictObject({
      identity: identity.describe('`user:NAME` or `group:NAME`.'),
      makes: z
        .strictObject({
          kinds: z
            .array(
              z
                .string()
                .max(317)
                .regex(
                  /^[A-Z][A-Za-z0-9]{0,62}(\.[a-z0-9][a-z0-9.-]*)?$/,
                  'a kind as in a manifest: `Service`, or `Deployment.apps`',
                ),
            )
            .min(1)
            .max(100)
            .optional()
            .describe('Kinds of the objects (`Service`, or with the group `Deployment.apps`); default: all.'),
          images: z
            .array(z.string().min(1).max(500))
            .min(1)
            .max(100)
            .optional()
            .describe('Images of their containers, with `*` for any text; default: all.'),
        })
        .optional()
        .describe('What it makes; everything else that it writes is refused. Default: anything.'),
    }),
  ],
  '`user:NAME`, `group:NAME`, or `identity` and `makes`',
);

// Controllers of kube-controller-manager that write into namespaces, by their account names with
// --use-service-account-credentials (kubernetes/kubernetes, cmd/kube-controller-manager/names).

export const environmentSchema = z.strictObject({
  apiVersion: z.literal(API_VERSION),
  kind: z.literal('Environment'),
  metadata: z.strictObject({
    name,
    labels: z
      .record(z.string().min(1).max(317), z.string().max(63))
      .optional()
      .describe('For `serve --selector`: which replicas run it.'),
  }),
  spec: z.strictObject({
    source: z.strictObject({
      url: field.gitSource.describe(
        '`https://…`, `http://…`, `ssh://USER@HOST/…`, `USER@HOST:…` or the path of a local repository.',
      ),
      branch: field.branch.default('main').describe('The branch to follow.'),
      path: field.path.default('.').describe('The directory with this environment’s manifests.'),
      interval: duration.default('30s').describe('How often to check the branch.'),
      baseline: commitId
        .optional()
        .describe(
          'The seal: commits up to this one are accepted as they are, ' +
            'and that is recorded. Without it, the whole history is judged.',
        ),
      staleAfter: duration
        .optional()
        .describe('Report when the branch has not moved for this long: a mirror may be holding commits back.'),
      credentials: z
        .strictObject({
          username: login.optional().describe('For HTTP; forges accept any name with a token.'),
          passwordFile: field.file
            .optional()
            .describe('A file with a password or token for HTTP, relative to this document.'),
          sshKeyFile: field.sshFile.optional().describe('A private key for SSH.'),
          knownHostsFile: field.sshFile.optional().describe('The trusted host keys; required for SSH.'),
          caFile: field.file.optional().describe('Certificates (PEM) of the authority of an HTTPS server.'),
          githubApp: z
            .strictObject({
              appId: shapedBy('address', /^\d{1,20}$/, 'a number'),
              installationId: shapedBy('address', /^\d{1,20}$/, 'a number'),
              privateKeyFile: field.file,
              apiUrl: field.address.default('https://api.github.com'),
            })
            .optional()
            .describe('Fetch as an installation of a GitHub App.'),
        })
        .refine((c) => c.sshKeyFile === undefined || c.knownHostsFile !== undefined, {
          error: '`knownHostsFile` beside `sshKeyFile`',
        })
        .refine((c) => c.passwordFile === undefined || c.githubApp === undefined, {
          error: 'either `passwordFile` or `githubApp`',
        })
        .optional()
        .describe('Credentials; files are read at each fetch, so they can be rotated.'),
      receiver: z
        .strictObject({
          from: z
            .enum(['github', 'gitlab', 'gitea', 'bitbucket', 'generic'])
            .describe(
              'How calls are authenticated. `generic`: HMAC-SHA-256 of `TIME.BODY`, and a header with the time.',
            ),
          secretFile: field.file.describe('A file with the secret shared with the forge, relative to this document.'),
        })
        .optional()
        .describe(
          'Check at once when the forge calls `/receive/ENVIRONMENT`. ' +
            'The payload is not trusted; a call only triggers a fetch.',
        ),
    }),
    target: z
      .strictObject({
        cluster: name
          .optional()
          .describe(
            'The name of the cluster. Environments that name different clusters may govern the same namespaces; ' +
              '`serve --cluster NAME` runs those of its own.',
          ),
        kubeconfig: field.file
          .optional()
          .describe(
            'A kubeconfig file with static credentials, and their files beside it; ' +
              'default: `--kubeconfig`, `KUBECONFIG`, or the pod’s own account.',
          ),
        context: shapedBy('argument', /^(?!-)[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]{1,253}$/u, 'a context name')
          .optional()
          .describe('The context in it; default: its current one.'),
        serviceAccount: shapedBy('argument', /^[a-z0-9][a-z0-9-]{0,62}\/[a-z0-9][a-z0-9.-]{0,252}$/, '`namespace/name`')
          .optional()
          .describe('The ServiceAccount to impersonate (`namespace/name`); its rights limit this environment.'),
        namespaces: z.array(name).min(1).describe('The governed namespaces; objects anywhere else are refused.'),
        namespace: name
          .optional()
          .describe(
            'The governed namespace for objects that do not set one, and the release namespace of Helm; ' +
              'default: the only governed one.',
          ),
        clusterScoped: z
          .array(clusterScope)
          .max(50)
          .default(['Namespace'])
          .describe(
            'Cluster-scoped objects this environment governs: all of a kind (`ClusterRole`, or with its group ' +
              '`ClusterRole.rbac.authorization.k8s.io`), or names of a kind. ' +
              'Two environments may share a kind if no name can be in both.',
          ),
      })
      .describe('Where the objects run.'),
    render: z
      .discriminatedUnion(
        'with',
        [
          z.strictObject({
            with: z.literal('plain').describe('Plain YAML and JSON files.'),
            substitute,
            limits,
          }),
          z.strictObject({
            with: z
              .literal('kustomize')
              .describe('The output of `kustomize build` for the directory, with charts of the repository.'),
            ...capabilities,
            substitute,
            limits,
          }),
          z.strictObject({
            with: z.literal('helm').describe('The output of `helm template` for a chart in the repository.'),
            chart: field.pathNear
              .default('.')
              .describe(
                'The chart’s directory, relative to `spec.source.path`; ' +
                  'or a `.yaml` file there that pins a chart in a registry: `url`, `digest`.',
              ),
            registries: z
              .array(
                z.strictObject({
                  host: field.host.describe('`registry.example.com`, with its port if it has one.'),
                  leadsTo,
                  credentialsFile: field.file.optional().describe('A file with `user:password`.'),
                  caFile: field.file.optional().describe('Certificates (PEM) of its authority.'),
                }),
              )
              .default([])
              .describe('Registries from which pinned charts may be fetched.'),
            values: z
              .array(field.pathNear)
              .default([])
              .describe('Files with values, relative to `spec.source.path`; later ones win.'),
            release: name.optional().describe('The release name; default: the environment’s name.'),
            ...capabilities,
            substitute,
            limits,
          }),
        ],
        { error: '`plain`, `kustomize` or `helm`' },
      )
      .prefault({ with: 'plain' })
      .describe('How files become objects.'),
    decryption: z
      .strictObject({
        ageKeyFile: field.file.optional().describe('A file with age identities (`AGE-SECRET-KEY-1…`), one per line.'),
        openpgpKeyFile: field.file.optional().describe('A file with armored OpenPGP private keys without passphrase.'),
      })
      .refine((d) => d.ageKeyFile !== undefined || d.openpgpKeyFile !== undefined, '`ageKeyFile` or `openpgpKeyFile`')
      .optional()
      .describe('Keys for Secrets encrypted by SOPS; files are read when needed, so they can be rotated.'),
    dependsOn: z
      .array(name)
      .default([])
      .describe('Environments that must be applied and healthy before this one changes.'),
    promotion: z
      .strictObject({
        from: name.describe('The environment that must have had the commit first.'),
        healthyFor: duration
          .default('0s')
          .describe('How long it must have been observed in health there; time without the service is not counted.'),
      })
      .optional()
      .describe('Accept only commits that another environment runs, or ran, in a healthy state.'),
    apply: z
      .strictObject({
        conflicts: z
          .enum(['refuse', 'adopt', 'takeOver'])
          .default('refuse')
          .describe(
            'If another field manager or tool owns an object or field that Git wants: refuse and name the owner; ' +
              'take ownership where only marks of tools would change (`adopt`); ' +
              'or take ownership and write what Git has.',
          ),
        onFirstFailure: z
          .enum(['remove', 'keep'])
          .default('remove')
          .describe(
            'If the first revision of all fails: remove what it wrote, or keep it, to look at. ' +
              'Later ones go back to the last good revision.',
          ),
      })
      .prefault({}),
    health: z
      .strictObject({
        wait: z
          .boolean()
          .default(true)
          .describe('Whether a change counts as applied only once its objects are healthy.'),
        timeout: duration
          .default('5m')
          .describe('How long that may take; after that the last good revision is restored.'),
        expressions: z
          .array(
            z.strictObject({
              apiVersion: z.string().min(1),
              kind: z.string().min(1),
              current: z.string().min(1).max(4096).describe('CEL over `object`: healthy when true.'),
              failed: z
                .string()
                .min(1)
                .max(4096)
                .optional()
                .describe('CEL over `object`: true if it can no longer become healthy.'),
            }),
          )
          .max(100)
          .default([])
          .describe('For kinds whose health neither Kubernetes itself nor a `Ready` condition shows.'),
      })
      .prefault({})
      .describe('When a change is done.'),
    drift: z
      .strictObject({
        mode: z.enum(['revert', 'report']).default('revert').describe('Revert it, or only report it.'),
        ignore: z
          .array(
            z.strictObject({
              kind: z.string().min(1),
              name: z.string().min(1).optional().describe('Only this object of the kind.'),
              fields: z
                .array(z.string().regex(/^(\/[^/]+)+$/, 'a JSON pointer such as `/spec/replicas`'))
                .min(1)
                .describe(
                  'JSON pointers (RFC 6901) of fields that others may set, ' +
                    'for example `/spec/replicas` under an autoscaler.',
                ),
            }),
          )
          .max(200)
          .default([]),
      })
      .prefault({})
      .describe('Handling of objects that differ from Git.'),
    windows: z
      .array(
        z.strictObject({
          name,
          kind: z
            .enum(['freeze', 'maintenance'])
            .describe('`freeze`: no changes while it is open. `maintenance`: changes only while one is open.'),
          schedule: cron.describe('When it opens: five fields as in cron.'),
          duration: duration.describe(
            'How long it stays open, by the clock of its time zone: `24h` is a whole local day.',
          ),
          timeZone: timeZone.default('UTC').describe('An IANA time zone, for example `Europe/Berlin`.'),
        }),
      )
      .max(50)
      .default([])
      .describe('When changes may be applied. Drift is always reverted.'),
    windowOverride: z
      .array(name)
      .default([])
      .describe('Principals or groups whose approval with `--override` lets one change through a closed window.'),
    trust: name.describe('The TrustPolicy that judges commits and approvals.'),
    trustPath: field.path
      .optional()
      .describe(
        'A file in the repository with the TrustPolicy; ' +
          'then `trust` is only its first version, and its `roots` approve each change.',
      ),
    policies: z
      .strictObject({
        bundles: z
          .array(bundleSource)
          .min(1, 'at least one bundle (`countersign help policy.md` shows how to run without rules)')
          .default([{ library: 'shipped' }])
          .describe('Sources of the rules; every bundle is evaluated.'),
        parameters: z
          .record(z.string(), z.unknown())
          .default({})
          .describe('What the rules read as `input.parameters`.'),
        waivers: field.path
          .default('countersign/waivers')
          .describe('The directory of the repository with signed waivers.'),
        images: field.path
          .default('countersign/images')
          .describe(
            'The directory of the repository with Sigstore bundles about images; ' +
              'the TrustPolicy says who may sign them.',
          ),
        deadline: duration
          .default('2s')
          .describe('How long the rules may take for one object; anything slower is denied.'),
      })
      .prefault({}),
    admission: z
      .strictObject({
        mode: z
          .enum(MODES)
          .default('enforce')
          .describe('`enforce`: refuse. `warn`: allow with a warning. `audit`: allow and record. `off`: do not check.'),
        controllers: z
          .array(identity)
          .default([])
          .describe(
            'Identities that carry out approved changes, beside the control plane’s own controllers. ' +
              'Review what you add: they may write anything but pods that no approved template explains.',
          ),
        operators: z
          .array(operator)
          .max(100)
          .default([])
          .describe(
            'Identities that may only write objects which belong, by controller references, to an object in Git; ' +
              'with `makes`, only such objects.',
          ),
        injected: z
          .array(injectionSchema)
          .default([])
          .describe(
            'What sidecar injectors add to the pods of approved templates. ' +
              'Everything that is not declared here leaves a pod unproven.',
          ),
        apiServer: z
          .array(z.enum(API_SERVER_PLUGINS))
          .default([])
          .describe(
            'Admission plugins that the cluster has switched on besides those that are on by default. ' +
              'A pod may then have what exactly these set.',
          ),
        connect: z
          .enum(['refuse', 'record'])
          .default('refuse')
          .describe(
            '`exec`, `attach`, `port-forward` and `proxy`: refuse them without break-glass, or allow and record them.',
          ),
        policy: z
          .strictObject({
            mode: z
              .enum(MODES)
              .optional()
              .describe('Handling of requests that the rules deny where only rules decide; default: same as `mode`.'),
            namespaces: z
              .array(z.string().regex(/^[a-z0-9*-]{1,63}$/, 'a namespace name, `*` for any part of it'))
              .default([])
              .describe('Other namespaces in which all writes are checked against this environment’s rules.'),
            failurePolicy: z
              .enum(['Ignore', 'Fail'])
              .default('Ignore')
              .describe('What the API server does there if the gate does not answer.'),
          })
          .prefault({})
          .describe('The rules at admission: same bundles, waivers and verdicts as for a change.'),
        breakGlass: z
          .strictObject({
            groups: z
              .array(z.string().min(1))
              .default([])
              .describe('Kubernetes groups whose members may use break-glass.'),
            holdFor: duration.default('1h').describe('The longest duration.'),
            debugImages: z
              .array(z.string().min(1))
              .default([])
              .describe(
                'Images, with `*` for any text, of debug containers that these groups may add without break-glass. ' +
                  'Only name, image, command, arguments, target and terminal may be given.',
              ),
            settle: z
              .enum(['other', 'anyone'])
              .default('other')
              .describe('Who may settle a use: someone other than who made it, or anyone.'),
            approvals: z
              .int()
              .min(0)
              .max(1)
              .default(0)
              .describe(
                'With 1, a grant counts once a second member of these groups has approved it ' +
                  '(`countersign break-glass approve`), and a reason on a single object does not count.',
              ),
          })
          .prefault({})
          .describe('Who may act outside the gate, and how long their changes are left alone.'),
      })
      .prefault({}),
  }),
});

/** Environments that one document may describe; 1,000 are measured (`bench/environment-set.ts`). */
export const MOST_IN_A_SET = 2000;

/** Texts by name for one environment of a set, for `${NAME}` in its template. */
export const setElement = z
  .record(
    z.string().regex(REFERENCE_NAME, 'a name of letters, digits and underscores'),
    z.string('a text; put a number in quotes').max(1024),
  )
  .describe('Texts for one environment, by name.');

export const environmentSetSchema = z.strictObject({
  apiVersion: z.literal(API_VERSION),
  kind: z.literal('EnvironmentSet'),
  metadata,
  spec: z
    .strictObject({
      list: z
        .strictObject({
          elements: z
            .array(setElement)
            .min(1)
            .max(MOST_IN_A_SET)
            .describe('One mapping of texts for each environment, for example `{name: eu-1, region: eu}`.'),
        })
        .optional()
        .describe('The environments, in this document.'),
      clusters: z
        .strictObject({
          file: field.file.describe(
            'A file with a list of such mappings, relative to this document; read when the documents are read.',
          ),
        })
        .optional()
        .describe('The environments, in a file of clusters.'),
      template: z
        .strictObject({
          metadata: z.strictObject({
            name: z.string().min(1).max(256).describe('For example `shop-${name}`.'),
            labels: z.record(z.string().min(1).max(317), z.string().max(256)).optional(),
          }),
          spec: z
            .record(z.string(), z.unknown())
            .describe('The `spec` of an Environment. In values, `${NAME}` is replaced; `$${` stands for `${`.'),
        })
        .describe('The Environment that is made for each of them, checked as if it were written by hand.'),
    })
    .refine((s) => (s.list === undefined) !== (s.clusters === undefined), {
      error: 'exactly one of `list` and `clusters`',
    }),
});

const fileWithAddress = z.strictObject({
  urlFile: field.file.describe('A file with the address, which is itself a secret.'),
});

const signedWebhook = {
  url: field.addressWithQuery.describe('The destination. Only its host appears in messages.'),
  secretFile: field.file.describe('Signs `TIME.BODY` with HMAC-SHA-256, in `X-Countersign-Signature`.'),
};
const email = {
  smtp: field.mailServer.describe(
    'The mail server, as `smtp://HOST:PORT` or `smtps://HOST:PORT` and nothing more. Without a port: 587 or 465.',
  ),
  username: login.optional().describe('With it, the password is only sent over TLS (or to this machine).'),
  passwordFile: field.file.optional(),
  from: field.mailbox.describe('One plain address.'),
  to: z.array(field.mailbox).min(1).max(100).describe('Plain addresses.'),
};
const hasWholeLogin = (e: { readonly username?: string | undefined; readonly passwordFile?: string | undefined }) =>
  (e.username === undefined) === (e.passwordFile === undefined);
const WHOLE_LOGIN = { error: 'both `username` and `passwordFile`, or neither' };

/** Events that notifiers can receive. */
export const HAPPENINGS = [
  'applying',
  'applied',
  'failed',
  'restored',
  'denied',
  'refused',
  'drift',
  'corrected',
  'contested',
  'rewritten',
  'stale',
  'blocked',
  'suspended',
  'rolled-back',
  'break-glass',
  'trouble',
] as const;

export const notifierSchema = z.strictObject({
  apiVersion: z.literal(API_VERSION),
  kind: z.literal('Notifier'),
  metadata,
  spec: z.strictObject({
    environments: z.array(z.string().min(1)).min(1).default(['**']).describe('Globs over environment names.'),
    events: z
      .array(z.enum(HAPPENINGS))
      .min(1)
      .default([
        'applied',
        'failed',
        'restored',
        'denied',
        'refused',
        'contested',
        'rewritten',
        'stale',
        'rolled-back',
        'break-glass',
        'trouble',
      ])
      .describe('Events to send.'),
    template: z
      .string()
      .min(1)
      .max(2000)
      .optional()
      .describe(
        'Template of the sentence: `{environment}`, `{event}`, ' +
          '`{revision}`, `{short}`, `{message}` and `{at}` are replaced.',
      ),
    repeatAfter: duration.default('1h').describe('The same event is sent again only after this time.'),
    to: z.union(
      [
        z.strictObject({ slack: fileWithAddress.describe('An incoming webhook of Slack.') }),
        z.strictObject({ teams: fileWithAddress.describe('A workflow of Microsoft Teams that accepts a card.') }),
        z.strictObject({
          webhook: z.strictObject(signedWebhook).describe('JSON to any address.'),
        }),
        z.strictObject({
          alertmanager: z
            .strictObject({ url: field.address })
            .describe('Alerts that are resolved when the environment is healthy again.'),
        }),
        z.strictObject({
          email: z.strictObject(email).refine(hasWholeLogin, WHOLE_LOGIN),
        }),
        z.strictObject({
          commitStatus: z
            .strictObject({
              forge: z.enum(['github', 'gitlab', 'gitea']),
              apiUrl: field.address.describe(
                'For example `https://api.github.com`, ' +
                  '`https://gitlab.example.com/api/v4`, `https://gitea.example.com/api/v1`.',
              ),
              repository: field.project,
              tokenFile: field.file,
            })
            .describe('The status `countersign/ENVIRONMENT` on the commit.'),
        }),
        z.strictObject({
          deployment: z
            .strictObject({
              forge: z.enum(['github', 'gitlab']),
              apiUrl: field.address.describe(
                'For example `https://api.github.com` or `https://gitlab.example.com/api/v4`.',
              ),
              repository: field.project,
              branch: field.branch.default('main').describe('The branch that GitLab shows with it.'),
              tokenFile: field.file,
            })
            .describe('A deployment of the commit to the environment, with its outcome. Not available in Gitea.'),
        }),
      ],
      { error: 'one of `slack`, `teams`, `webhook`, `alertmanager`, `email`, `commitStatus` and `deployment`' },
    ),
  }),
});

const delivery = { name: name.describe('The destination’s name on the ledger, which contains no addresses.') };

export const reportScheduleSchema = z.strictObject({
  apiVersion: z.literal(API_VERSION),
  kind: z.literal('ReportSchedule'),
  metadata,
  spec: z.strictObject({
    schedule: cron.describe(
      'When reports are made, in UTC: five fields as in cron. A period ' +
        'is reported at the first of these times after its end and `grace`.',
    ),
    period: z
      .enum(['day', 'week', 'month', 'quarter', 'year'])
      .default('month')
      .describe('The period of each report; in UTC, weeks begin on Monday.'),
    grace: duration.default('24h').describe('How long to wait for late events of a period.'),
    since: time
      .optional()
      .describe('The first report covers the period that contains this time; without it, the newest complete period.'),
    environments: z.array(name).default([]).describe('Environments to report on; default: all.'),
    frameworks: z
      .array(z.union([name, z.strictObject({ file: field.file })]))
      .min(1)
      .default(['soc2'])
      .describe('Names of shipped frameworks, or files with others.'),
    entity: z
      .string()
      .min(1)
      .max(200)
      .optional()
      .describe('The organisation in the report; default: the ledger’s name.'),
    classification: z.string().min(1).max(100).default('confidential').describe('Printed on every page.'),
    failureHours: z
      .int()
      .min(1)
      .max(100_000)
      .default(24)
      .describe('A change that is undone within this many hours counts as failed.'),
    reviewHours: z.int().min(1).max(100_000).default(72).describe('Hours within which break-glass must be reviewed.'),
    deliver: z
      .array(
        z.union(
          [
            z.strictObject({
              ...delivery,
              directory: z
                .strictObject({ path: field.directory })
                .describe('A directory on this machine. Not in documents that are objects in a cluster.'),
            }),
            z.strictObject({
              ...delivery,
              s3: z
                .strictObject({
                  endpoint: field.address
                    .refine(isBare, 'an address without a path')
                    .describe('For example `https://s3.eu-central-1.amazonaws.com`.'),
                  region: shapedBy('argument', /^[a-z0-9][a-z0-9-]{0,62}$/, 'a region such as `eu-central-1`').default(
                    'us-east-1',
                  ),
                  bucket: shapedBy(
                    'address',
                    /^(?!.*\.[.-])(?!.*-\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/,
                    'a bucket name',
                  ),
                  prefix: shapedBy(
                    'address',
                    /^(?!.{513})((?!\.{1,2}\/)[\w.][\w.-]*\/)*$/,
                    'nothing, or names that each end with `/`',
                  ).default(''),
                  accessKeyFile: field.file.describe('A file with the id of the access key.'),
                  secretKeyFile: field.file.describe('A file with its secret.'),
                })
                .describe('An object store that speaks S3.'),
            }),
            z.strictObject({
              ...delivery,
              email: z
                .strictObject({ ...email, attach: z.boolean().default(true).describe('Whether to attach the PDF.') })
                .refine(hasWholeLogin, WHOLE_LOGIN)
                .describe('A mail with the summary.'),
            }),
            z.strictObject({
              ...delivery,
              webhook: z.strictObject(signedWebhook).describe('JSON with the summary and the digests of the files.'),
            }),
            z.strictObject({
              ...delivery,
              cluster: z
                .strictObject({ namespace: name.describe('Namespace of the Report.') })
                .describe(
                  'A summary as a `Report` of openreports.io in the first environment’s cluster: ' +
                    'controls, and completeness of the population.',
                ),
            }),
          ],
          { error: '`name` and one of `directory`, `s3`, `email`, `webhook` and `cluster`' },
        ),
      )
      .max(20)
      .default([])
      .describe('Where reports go besides the service’s own data directory.'),
  }),
});

/** Credentials for a Git remote, as in the Environment. */
export type SourceCredentials = NonNullable<Environment['spec']['source']['credentials']>;
export type Environment = z.infer<typeof environmentSchema>;
export type EnvironmentSet = z.infer<typeof environmentSetSchema>;
export type AdmissionMode = (typeof MODES)[number];
export type Window = Environment['spec']['windows'][number];
export type IgnoreRule = Environment['spec']['drift']['ignore'][number];
export type HealthExpression = Environment['spec']['health']['expressions'][number];
export type TrustPolicy = z.infer<typeof trustPolicySchema>;
export type WaiverDocument = z.infer<typeof waiverSchema>;
export type BundleSource = Environment['spec']['policies']['bundles'][number];
export type Notifier = z.infer<typeof notifierSchema>;
export type ReportSchedule = z.infer<typeof reportScheduleSchema>;
export type ReportDelivery = ReportSchedule['spec']['deliver'][number];
export type Document = Environment | EnvironmentSet | TrustPolicy | Notifier | ReportSchedule;

/** Returns the namespace for objects that set none; undefined if an environment with several has not chosen one. */
export function defaultNamespace({ spec }: { readonly spec: Pick<Environment['spec'], 'target'> }): string | undefined {
  const { namespace, namespaces } = spec.target;
  return namespace ?? (namespaces.length === 1 ? namespaces[0] : undefined);
}

/** Returns how to handle requests that an environment's rules deny where only rules decide. */
export function rulesMode({ spec }: Environment): AdmissionMode {
  return spec.admission.policy.mode ?? spec.admission.mode;
}

/** Converts a schema size such as `64Mi` or `1Gi` to bytes. */
export function sizeInBytes(size: string): number {
  return Number.parseInt(size, 10) * (size.endsWith('Gi') ? 1024 : 1) * 1024 * 1024;
}

/** Converts a schema duration such as `30s` to milliseconds. */
export function durationMs(text: string): number {
  const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
  const match = /^(\d+)(ms|s|m|h|d)$/.exec(text);
  if (match === null) throw new RangeError(`\`${text}\` is not a duration`);
  return Number(match[1]) * unit[match[2] as keyof typeof unit];
}

/** Converts a duration from outside to milliseconds, or returns undefined if it is invalid. */
export function parseDuration(text: string): number | undefined {
  return /^\d{1,9}(ms|s|m|h|d)$/.test(text) ? durationMs(text) : undefined;
}

// Buckets are below the endpoint: any path in it would be taken for a bucket.
function isBare(endpoint: string): boolean {
  return /^https?:\/\/[^/]+\/?$/.test(endpoint);
}

function isTimeZone(text: string): boolean {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: text }) !== undefined;
  } catch {
    return false;
  }
}

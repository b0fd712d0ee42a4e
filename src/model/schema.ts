import { z } from 'zod';
import { isCron } from './cron.ts';
import { field, shapedBy } from './field.ts';

/** The one schema of Countersign's documents: types, validation and, from them, reference docs all come from here. */
const API_VERSION = 'countersign.dev/v1alpha1';

const name = shapedBy(
  'file', // directories of reports and leases are called by it
  /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/,
  'a lower-case name of letters, digits and dashes, at most 63 long',
).describe('A name: lower-case letters, digits and dashes.');

const duration = z
  .string('a duration such as `120s`')
  .regex(/^\d+(ms|s|m|h|d)$/, 'a duration such as `30s`, `5m` or `1h`')
  .describe('A duration such as `30s`, `5m` or `1h`.');

const cron = z.string().min(9).max(100).refine(isCron, 'a schedule of five fields as in cron that comes at some time');

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
      .describe(
        '`superseded` and `retired` end the key at `at`; `compromised` takes back everything, also what is older.',
      ),
    compromisedSince: time
      .optional()
      .describe('Commits that the ledger saw before this time still count under a compromised key.'),
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
    requireTouch: z.boolean().optional().describe('A hardware key must have been touched for each signature.'),
    requirePin: z
      .boolean()
      .optional()
      .describe('A hardware key must have asked for its PIN or fingerprint for each signature.'),
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
              'A `bot` signs what it makes itself. A `platform` (a forge’s own key) signs for whoever pressed its button. Neither is a person, and neither approves.',
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
                login: z.string().optional().describe('Its name there, for people to read.'),
              }),
            )
            .default([])
            .describe('Accounts whose imported reviews are this person’s.'),
          identities: z
            .array(
              z.strictObject({
                issuer: z.string().min(1).describe('Who vouched for it, for example `https://accounts.google.com`.'),
                subject: z.string().min(1).describe('The address or URI in the certificate, whole.'),
                validAfter: time.optional(),
                validBefore: time.optional(),
                revoked: revoked.optional(),
              }),
            )
            .default([])
            .describe(
              'Identities in Sigstore certificates (gitsign) that are this principal’s; they count only with `sigstore`.',
            ),
          imports: z
            .array(field.host)
            .default([])
            .describe('Forges (hosts) whose reviews this bot may import and sign for; `countersign approvals import`.'),
          keys: z
            .array(key)
            .default([])
            .describe('Keys that prove it is them; none where certificates or allowed signers do.'),
        }),
      )
      .min(1),
    groups: z.array(z.strictObject({ name, members: z.array(name).min(1) })).default([]),
    rules: z
      .array(
        z.strictObject({
          name,
          environments: z.array(z.string().min(1)).default(['**']).describe('Globs over names of environments.'),
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
                .describe('Whether an approval still counts when the base moved on, but only in other files.'),
              forgeReviews: z
                .enum(['half', 'whole', 'none'])
                .default('half')
                .describe('What an imported forge review of this very commit is worth; `half`: two make one approval.'),
            })
            .prefault({ required: 1 }),
        }),
      )
      .min(1)
      .describe('Every rule that matches a touched path must hold; a path that no rule matches is refused.'),
    certificateAuthorities: z
      .array(
        z.strictObject({
          name,
          ssh: z.string().min(1).max(16_384).describe('The authority’s OpenSSH public key line.'),
          principals: z
            .string()
            .min(1)
            .describe(
              'Which names in certificates it may vouch for: patterns with `*`, `?` and `!`, for example `*@example.com`.',
            ),
          validAfter: time.optional(),
          validBefore: time.optional(),
          revoked: revoked.optional(),
        }),
      )
      .default([])
      .describe('SSH certificate authorities; a name in a certificate is a principal’s name or one of its addresses.'),
    allowedSigners: z
      .string()
      .optional()
      .describe('Lines as in OpenSSH’s allowed_signers; each must lead to one principal by its addresses.'),
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
        'Take commits signed by gitsign in its offline mode; without this they are refused, and no code for them is loaded.',
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
        requireTouch: z.boolean().default(false).describe('Only signatures that a hardware key was touched for count.'),
        requirePin: z
          .boolean()
          .default(false)
          .describe('Only signatures that a hardware key asked its PIN or fingerprint for count.'),
      })
      .prefault({}),
    times: z
      .strictObject({
        skew: duration.default('5m').describe('How far honest clocks may differ.'),
        spread: duration.default('24h').describe('How far an OpenPGP signature’s own time may lie from the commit’s.'),
        maximumAge: duration
          .optional()
          .describe('How old a commit may say it is when it is first seen; default: any age.'),
      })
      .prefault({}),
    history: z
      .enum(['strict', 'merged'])
      .default('strict')
      .describe(
        '`strict`: every commit is signed. `merged`: an unsigned one may come in by a merge that a person signed and others approved.',
      ),
    roots: z
      .strictObject({ members: z.array(name).min(1), threshold: z.int().min(1).max(20).default(1) })
      .optional()
      .describe(
        'Who must approve a change of this policy where it is kept in the repository (`spec.trustPath` of the Environment).',
      ),
    waivers: z
      .strictObject({
        from: z
          .array(name)
          .default([])
          .describe('Principals or groups whose signature waives a rule; without any, nobody’s does.'),
        maximum: duration.default('90d').describe('How long a waiver may run from the day it is signed.'),
      })
      .prefault({}),
    images: z
      .strictObject({
        signers: z
          .array(
            z
              .strictObject({
                name: name.describe('How rules call it.'),
                identity: z
                  .strictObject({
                    issuer: z
                      .string()
                      .min(1)
                      .describe('Who vouched for it, for example `https://token.actions.githubusercontent.com`.'),
                    subject: z
                      .string()
                      .min(1)
                      .describe('The address or URI in the certificate; `*` for any part of it.'),
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
          .describe('Whose statements about container images rules may read as `input.images`.'),
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
        'Commits that never count, by the digest of what is signed: a commit’s id changes with the spelling of its signature.',
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
    'Other hosts that it may lead to: where its files are stored, and its token service (for Docker Hub `auth.docker.io`, which then gets the credentials).',
  );
const bundleSource = z.union(
  [
    z.strictObject({ library: z.literal('shipped').describe('The rules that come with Countersign.') }),
    z.strictObject({
      file: field.file.describe('A bundle (`.tar.gz`), relative to this document.'),
      sha256: z
        .string()
        .regex(/^[0-9a-f]{64}$/, 'the digest that `countersign policy build` prints')
        .optional()
        .describe('The digest it must have.'),
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
      path: field.path.describe('A bundle in the repository itself, as it is in the revision that is judged.'),
      signedBy,
    }),
    z.strictObject({
      repository: z.strictObject({
        url: field.gitSource.describe('Another Git repository.'),
        commit: commitId,
        branch: field.branch.default('main').describe('A branch that has the commit.'),
        path: field.path.describe('The bundle in it.'),
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
    rule: z.string().min(1).describe('The rule’s name, as findings give it.'),
    environments: z.array(z.string().min(1)).min(1).default(['**']).describe('Globs over names of environments.'),
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
      .describe('What it is for; every field that is given must be the object’s.'),
    reason: z.string().min(3),
    ticket: z.string().min(1).describe('Where it is being worked on.'),
    issuedAt: time,
    until: z.iso.date().describe('The first day on which it no longer counts, in UTC.'),
  }),
  signature: z
    .string()
    .max(65_536)
    .optional()
    .describe('Made by `countersign policy waive`, over everything above and the repository.'),
});

const substitute = z
  .record(
    z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, 'a name of letters, digits and underscores'),
    z.string().max(4096),
  )
  .optional()
  .describe(
    'Texts for `${NAME}` in values; with it, a name that is not declared is an error, and `$${` stands for `${`.',
  );

const amount = () => shapedBy('argument', /^[1-9]\d{0,4}[MG]i$/, 'a size such as `64Mi` or `1Gi`');

const LEAST_MEMORY = '128Mi'; // with less, the process that renders does not start
const LEAST_MS = 1000;

const limits = z
  .strictObject({
    objects: z.int().min(1).max(100_000).default(20_000).describe('Objects.'),
    values: z
      .int()
      .min(1)
      .max(5_000_000)
      .default(1_000_000)
      .describe('Numbers, texts, truth values, lists and mappings in them, once aliases are followed.'),
    size: amount().default('32Mi').describe('Bytes of the files, or characters of the objects, whichever is more.'),
    memory: amount()
      .refine((text) => !(sizeInBytes(text) < sizeInBytes(LEAST_MEMORY)), `at least \`${LEAST_MEMORY}\``)
      .default('384Mi')
      .describe('Memory of the process that renders; it is ended beyond it. At least `128Mi`.'),
    time: duration
      .refine((text) => (parseDuration(text) ?? LEAST_MS) >= LEAST_MS, 'at least `1s`')
      .default('120s')
      .describe('Time for rendering; it is ended after it. At least `1s`.'),
  })
  .prefault({})
  .describe('The most that may be rendered, all files together. What comes to more is denied.');

/** What `spec.render.limits` is where an environment says nothing. */
export const DEFAULT_LIMITS = limits.parse(undefined);

const MODES = ['enforce', 'warn', 'audit', 'off'] as const;
const identity = z.string().regex(/^(user|group):.+$/, '`user:NAME` or `group:NAME`');

// The controllers of kube-controller-manager that write into namespaces, under the names it gives them with
// --use-service-account-credentials (kubernetes/kubernetes, cmd/kube-controller-manager/names).
const CONTROLLERS = [
  'attachdetach-controller',
  'certificate-controller',
  'clusterrole-aggregation-controller',
  'cronjob-controller',
  'daemon-set-controller',
  'deployment-controller',
  'disruption-controller',
  'endpoint-controller',
  'endpointslice-controller',
  'endpointslicemirroring-controller',
  'ephemeral-volume-controller',
  'expand-controller',
  'generic-garbage-collector',
  'horizontal-pod-autoscaler',
  'job-controller',
  'namespace-controller',
  'node-controller',
  'persistent-volume-binder',
  'pod-garbage-collector',
  'pv-protection-controller',
  'pvc-protection-controller',
  'replicaset-controller',
  'replication-controller',
  'resource-claim-controller',
  'resourcequota-controller',
  'root-ca-cert-publisher',
  'service-account-controller',
  'service-controller',
  'statefulset-controller',
  'ttl-after-finished-controller',
];

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
      branch: field.branch.default('main').describe('The branch that is followed.'),
      path: field.path.default('.').describe('The directory whose manifests this environment runs.'),
      interval: duration.default('30s').describe('How often to look.'),
      baseline: commitId
        .optional()
        .describe(
          'The seal: commits up to this one are taken as they are, and that is recorded; without it, the whole history is judged.',
        ),
      staleAfter: duration
        .optional()
        .describe('Say so when the branch has not moved for this long: a mirror may be holding commits back.'),
      credentials: z
        .strictObject({
          username: login.optional().describe('For HTTP; forges take any name with a token.'),
          passwordFile: field.file
            .optional()
            .describe('A file with a password or token for HTTP, relative to this document.'),
          sshKeyFile: field.sshFile.optional().describe('A private key for SSH.'),
          knownHostsFile: field.sshFile.optional().describe('The host keys that are believed; needed for SSH.'),
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
        .describe('How to get in; files are read at each fetch, so they can be renewed.'),
      receiver: z
        .strictObject({
          from: z
            .enum(['github', 'gitlab', 'gitea', 'bitbucket', 'generic'])
            .describe(
              'Whose calls: how they prove themselves. `generic`: HMAC-SHA-256 of `TIME.BODY`, and a header with the time.',
            ),
          secretFile: field.file.describe(
            'A file with the secret that was given to the forge, relative to this document.',
          ),
        })
        .optional()
        .describe(
          'Look at once when the forge calls `/receive/ENVIRONMENT`; what the call says is not believed, it only makes us look.',
        ),
    }),
    target: z
      .strictObject({
        kubeconfig: field.file
          .optional()
          .describe(
            'A kubeconfig file with static credentials, and their files beside it; default: `--kubeconfig`, `KUBECONFIG`, or the pod’s own account.',
          ),
        context: shapedBy('argument', /^(?!-)[^\p{Cc}\p{Cf}\p{Zl}\p{Zp}]{1,253}$/u, 'the name of a context')
          .optional()
          .describe('The context in it; default: its current one.'),
        serviceAccount: shapedBy('argument', /^[a-z0-9][a-z0-9-]{0,62}\/[a-z0-9][a-z0-9.-]{0,252}$/, '`namespace/name`')
          .optional()
          .describe('The ServiceAccount to act as (`namespace/name`): its rights are all that this environment has.'),
        namespaces: z.array(name).min(1).describe('The governed namespaces; objects anywhere else are refused.'),
        clusterScoped: z
          .array(z.string().min(1))
          .default(['Namespace'])
          .describe('Cluster-scoped kinds this environment may own.'),
      })
      .describe('Where the objects run.'),
    render: z
      .discriminatedUnion(
        'with',
        [
          z.strictObject({
            with: z.literal('plain').describe('The YAML and JSON files as they are.'),
            substitute,
            limits,
          }),
          z.strictObject({
            with: z.literal('kustomize').describe('What `kustomize build` makes of the directory.'),
            substitute,
            limits,
          }),
          z.strictObject({
            with: z.literal('helm').describe('What `helm template` makes of a chart of the repository.'),
            chart: field.pathNear
              .default('.')
              .describe(
                'The chart’s directory, relative to `spec.source.path`; or a `.yaml` file there that pins a chart of a registry: `url`, `digest`.',
              ),
            registries: z
              .array(
                z.strictObject({
                  host: field.host.describe('`registry.example.com`, with its port where it has one.'),
                  leadsTo,
                  credentialsFile: field.file.optional().describe('A file with `user:password`.'),
                  caFile: field.file.optional().describe('Certificates (PEM) of its authority.'),
                }),
              )
              .default([])
              .describe('Where charts that are pinned may be taken from.'),
            values: z
              .array(field.pathNear)
              .default([])
              .describe('Files with values, relative to `spec.source.path`; later ones win.'),
            release: name.optional().describe('The release’s name; default: the environment’s.'),
            namespace: name.optional().describe('For objects that name none; default: the first governed namespace.'),
            kubeVersion: shapedBy('argument', /^v?1\.\d{1,4}(\.\d{1,4})?$/, 'a version such as `1.34`')
              .default('1.34')
              .describe('What the chart is told of the cluster; a verdict must not depend on where it is reached.'),
            apiVersions: z
              .array(
                shapedBy(
                  'argument',
                  /^[A-Za-z0-9][A-Za-z0-9.-]{0,252}(\/[A-Za-z0-9][A-Za-z0-9.-]{0,252}){0,2}$/,
                  'an API version, or one with a kind',
                ),
              )
              .default([])
              .describe('More versions and kinds that the chart may ask for.'),
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
        ageKeyFile: field.file.optional().describe('A file with age identities (`AGE-SECRET-KEY-1…`), one a line.'),
        openpgpKeyFile: field.file.optional().describe('A file with armored OpenPGP private keys without passphrase.'),
      })
      .refine((d) => d.ageKeyFile !== undefined || d.openpgpKeyFile !== undefined, '`ageKeyFile` or `openpgpKeyFile`')
      .optional()
      .describe('Keys for Secrets that SOPS encrypted; files are read when they are needed, so they can be renewed.'),
    dependsOn: z
      .array(name)
      .default([])
      .describe('Environments that must be applied and healthy before this one changes.'),
    promotion: z
      .strictObject({
        from: name.describe('The environment that must have had the commit first.'),
        healthyFor: duration.default('0s').describe('For how long it must have been healthy there.'),
      })
      .optional()
      .describe('Take only commits that another environment runs, or ran, in health.'),
    apply: z
      .strictObject({
        conflicts: z
          .enum(['refuse', 'takeOver'])
          .default('refuse')
          .describe(
            'What to do when another field manager, or another tool, has an object or field that Git wants: say whose, or take it.',
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
          .describe('How long they may take; after that the last good revision is restored.'),
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
                .describe('CEL over `object`: will not become healthy any more when true.'),
            }),
          )
          .max(100)
          .default([])
          .describe('For kinds that neither Kubernetes itself nor a `Ready` condition tells about.'),
      })
      .prefault({})
      .describe('When a change is done.'),
    drift: z
      .strictObject({
        mode: z.enum(['revert', 'report']).default('revert').describe('Put it right, or only say so.'),
        ignore: z
          .array(
            z.strictObject({
              kind: z.string().min(1),
              name: z.string().min(1).optional().describe('Only this object of the kind.'),
              fields: z
                .array(z.string().regex(/^(\/[^/]+)+$/, 'a JSON pointer such as `/spec/replicas`'))
                .min(1)
                .describe(
                  'JSON pointers (RFC 6901) of fields that others may set, for example `/spec/replicas` under an autoscaler.',
                ),
            }),
          )
          .max(200)
          .default([]),
      })
      .prefault({})
      .describe('What to do about objects that are not as Git has them.'),
    windows: z
      .array(
        z.strictObject({
          name,
          kind: z
            .enum(['freeze', 'maintenance'])
            .describe('`freeze`: no change while it is open. `maintenance`: changes only while one is open.'),
          schedule: cron.describe('When it opens: five fields as in cron.'),
          duration: duration.describe('For how long it stays open.'),
          timeZone: timeZone.default('UTC').describe('An IANA time zone, for example `Europe/Berlin`.'),
        }),
      )
      .max(50)
      .default([])
      .describe('When changes may be applied. Drift is put right at all times.'),
    windowOverride: z
      .array(name)
      .default([])
      .describe('Principals or groups whose approval with `--override` lets one change through a closed window.'),
    trust: name.describe('The TrustPolicy that judges commits and approvals.'),
    trustPath: field.path
      .optional()
      .describe(
        'A file in the repository with the TrustPolicy; `trust` then only begins it, and its `roots` approve each change.',
      ),
    policies: z
      .strictObject({
        bundles: z
          .array(bundleSource)
          .min(1)
          .default([{ library: 'shipped' }])
          .describe('Where the rules come from; every bundle is asked.'),
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
            'The directory of the repository with Sigstore bundles about images; who may sign them, the TrustPolicy says.',
          ),
        deadline: duration
          .default('2s')
          .describe('How long the rules may take for one object; what takes longer is denied.'),
      })
      .prefault({}),
    admission: z
      .strictObject({
        mode: z
          .enum(MODES)
          .default('enforce')
          .describe(
            '`enforce`: refuse. `warn`: let through and say so. `audit`: let through, only recorded. `off`: nothing is asked.',
          ),
        controllers: z
          .array(identity)
          .default([
            'group:system:nodes',
            'user:system:apiserver',
            'user:system:kube-controller-manager',
            'user:system:kube-scheduler',
            ...CONTROLLERS.map((name) => `user:system:serviceaccount:kube-system:${name}`),
          ])
          .describe('Identities of the cluster’s own machinery. Review what you add: they may write anything.'),
        operators: z
          .array(identity)
          .default([])
          .describe(
            'Identities that may write only what belongs, by controller references, to an object that Git has.',
          ),
        connect: z
          .enum(['refuse', 'record'])
          .default('refuse')
          .describe(
            '`exec`, `attach`, `port-forward` and `proxy`: refuse them without break-glass, or let them through on record.',
          ),
        policy: z
          .strictObject({
            mode: z
              .enum(MODES)
              .optional()
              .describe('What becomes of a request that the rules deny where they alone decide; default: as `mode`.'),
            namespaces: z
              .array(z.string().regex(/^[a-z0-9*-]{1,63}$/, 'a name of a namespace, `*` for any part of it'))
              .default([])
              .describe('Other namespaces in which everybody’s writes are held against this environment’s rules.'),
            failurePolicy: z
              .enum(['Ignore', 'Fail'])
              .default('Ignore')
              .describe('What the API server does there while the gate does not answer.'),
          })
          .prefault({})
          .describe('The rules at admission: same bundles, waivers and verdicts as for a change.'),
        breakGlass: z
          .strictObject({
            groups: z
              .array(z.string().min(1))
              .default([])
              .describe('Kubernetes groups whose members may use break-glass.'),
            holdFor: duration.default('1h').describe('The longest time it stands.'),
          })
          .prefault({})
          .describe('Who may act outside the gate, and how long what they did is left alone.'),
      })
      .prefault({}),
  }),
});

const fileWithAddress = z.strictObject({
  urlFile: field.file.describe('A file with the address, which is itself a secret.'),
});

const signedWebhook = {
  url: field.addressWithQuery.describe('Where it goes. Only its host appears in messages.'),
  secretFile: field.file.describe('Signs `TIME.BODY` with HMAC-SHA-256, in `X-Countersign-Signature`.'),
};
const email = {
  smtp: field.mailServer.describe(
    'The mail server, as `smtp://HOST:PORT` or `smtps://HOST:PORT` and nothing more. Without a port: 587 or 465.',
  ),
  username: login.optional().describe('With it, the password goes out over TLS only (or to this machine).'),
  passwordFile: field.file.optional(),
  from: field.mailbox.describe('One plain address.'),
  to: z.array(field.mailbox).min(1).max(100).describe('Plain addresses.'),
};
const hasWholeLogin = (e: { readonly username?: string | undefined; readonly passwordFile?: string | undefined }) =>
  (e.username === undefined) === (e.passwordFile === undefined);
const WHOLE_LOGIN = { error: 'both `username` and `passwordFile`, or neither' };

/** What notifiers can hear of. */
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
    environments: z.array(z.string().min(1)).min(1).default(['**']).describe('Globs over names of environments.'),
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
      .describe('What is told.'),
    template: z
      .string()
      .min(1)
      .max(2000)
      .optional()
      .describe(
        'The sentence: `{environment}`, `{event}`, `{revision}`, `{short}`, `{message}` and `{at}` stand for what happened.',
      ),
    repeatAfter: duration.default('1h').describe('The same thing is told again only after this time.'),
    to: z.union(
      [
        z.strictObject({ slack: fileWithAddress.describe('An incoming webhook of Slack.') }),
        z.strictObject({ teams: fileWithAddress.describe('A workflow of Microsoft Teams that takes a card.') }),
        z.strictObject({
          webhook: z.strictObject(signedWebhook).describe('JSON to any address.'),
        }),
        z.strictObject({
          alertmanager: z.strictObject({ url: field.address }).describe('Alerts that end when all is well again.'),
        }),
        z.strictObject({
          email: z.strictObject(email).refine(hasWholeLogin, WHOLE_LOGIN),
        }),
        z.strictObject({
          commitStatus: z
            .strictObject({
              forge: z.enum(['github', 'gitlab', 'gitea']),
              apiUrl: field.address.describe(
                'For example `https://api.github.com`, `https://gitlab.example.com/api/v4`, `https://gitea.example.com/api/v1`.',
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
            .describe('A deployment of the commit to the environment, with what became of it. Gitea knows none.'),
        }),
      ],
      { error: 'one of `slack`, `teams`, `webhook`, `alertmanager`, `email`, `commitStatus` and `deployment`' },
    ),
  }),
});

const delivery = { name: name.describe('What the ledger calls this place: addresses do not go there.') };

export const reportScheduleSchema = z.strictObject({
  apiVersion: z.literal(API_VERSION),
  kind: z.literal('ReportSchedule'),
  metadata,
  spec: z.strictObject({
    schedule: cron.describe(
      'When reports are made, in UTC: five fields as in cron. A period is reported at the first of these times after its end and `grace`.',
    ),
    period: z
      .enum(['day', 'week', 'month', 'quarter', 'year'])
      .default('month')
      .describe('What each report is about; in UTC, weeks begin on Monday.'),
    grace: duration.default('24h').describe('How long late events of a period are waited for.'),
    since: time
      .optional()
      .describe('The first report is of the period with this time; without it, of the newest whole period there is.'),
    environments: z
      .array(name)
      .default([])
      .describe('Environments that the reports are about; all of them where none is named.'),
    frameworks: z
      .array(z.union([name, z.strictObject({ file: field.file })]))
      .min(1)
      .default(['soc2'])
      .describe('Names of frameworks that come along, or files with others.'),
    entity: z
      .string()
      .min(1)
      .max(200)
      .optional()
      .describe('Whose report it is; the ledger’s name where nothing is said.'),
    classification: z.string().min(1).max(100).default('confidential').describe('Stands on every page.'),
    failureHours: z
      .int()
      .min(1)
      .max(100_000)
      .default(24)
      .describe('A change that is undone within so many hours counts as failed.'),
    reviewHours: z
      .int()
      .min(1)
      .max(100_000)
      .default(72)
      .describe('Within how many hours break-glass is to be reviewed.'),
    deliver: z
      .array(
        z.union(
          [
            z.strictObject({
              ...delivery,
              directory: z
                .strictObject({ path: field.file })
                .describe('A directory of this machine. Not in documents that are objects in a cluster.'),
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
                    'the name of a bucket',
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
                .strictObject({ ...email, attach: z.boolean().default(true).describe('Whether the PDF goes along.') })
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
                .strictObject({ namespace: name.describe('Where the Report is.') })
                .describe(
                  'A summary as a `Report` of openreports.io in the first environment’s cluster: controls, and whether the population is whole.',
                ),
            }),
          ],
          { error: '`name` and one of `directory`, `s3`, `email`, `webhook` and `cluster`' },
        ),
      )
      .max(20)
      .default([])
      .describe('Where reports go beside the service’s own data directory.'),
  }),
});

/** How to get into a Git remote, as the Environment says it. */
export type SourceCredentials = NonNullable<Environment['spec']['source']['credentials']>;
export type Environment = z.infer<typeof environmentSchema>;
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
export type Document = Environment | TrustPolicy | Notifier | ReportSchedule;

/** What becomes of a request that an environment's rules deny where they alone decide. */
export function rulesMode({ spec }: Environment): AdmissionMode {
  return spec.admission.policy.mode ?? spec.admission.mode;
}

/** Bytes of a size in the schema such as `64Mi` or `1Gi`. */
export function sizeInBytes(size: string): number {
  return Number.parseInt(size, 10) * (size.endsWith('Gi') ? 1024 : 1) * 1024 * 1024;
}

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

// Buckets are below it: what else stood there would be read as one.
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

import { z } from 'zod';
import { IMAGE_PATTERN } from './image-pattern.ts';

const label = z.string().regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'lower-case letters, digits and `-`');
const objectName = z.string().regex(/^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$/, 'the name of an object');
const mountPath = z
  .string()
  .max(1024)
  .regex(/^\/[A-Za-z0-9._/-]+$/, 'an absolute path');
const image = z.string().max(1024).regex(IMAGE_PATTERN, {
  error: '`REPOSITORY@sha256:DIGEST` or `REPOSITORY:TAG`; `*` may stand in the tag and in the digest',
});
// A bare `*` would allow everything.
const metadataKey = z
  .string()
  .max(317)
  .regex(/^([A-Za-z0-9.-]+\/)?[A-Za-z0-9][A-Za-z0-9._-]*\*?$|^[A-Za-z0-9.-]+\/\*$/, '`DOMAIN/KEY` or `DOMAIN/*`')
  .refine((key) => !key.startsWith('countersign.dev/'), 'a key of others than Countersign');
const variable = z
  .string()
  .max(256)
  .regex(/^[A-Za-z_][A-Za-z0-9_.-]{0,254}\*?$/, 'the name of a variable, with `*` at its end for any ending');

const injectedContainer = z.strictObject({
  name: label,
  image: image.describe(
    'Its image: `REPOSITORY@sha256:DIGEST`, or with `*` in the tag or digest. A tag can be moved: prefer digests.',
  ),
  as: z
    .array(z.enum(['container', 'init', 'sidecar']))
    .min(1)
    .default(['container', 'sidecar'])
    .describe('Where it may stand: beside others, before them, or before them with `restartPolicy: Always`.'),
  capabilities: z.array(z.string().regex(/^[A-Z_]+$/, 'a capability, for example `NET_ADMIN`')).default([]),
  root: z.boolean().default(false).describe('It may run as user or group 0.'),
  exec: z.boolean().default(false).describe('Its probes and lifecycle hooks may run commands.'),
  sample: z
    .string()
    .regex(/^sha256:[0-9a-f]{64}$/, '`sha256:` and 64 hexadecimal digits')
    .optional()
    .describe(
      'The digest of its command, arguments, variables, probes and hooks, ' +
        'as `countersign admission learn` prints it. Without it, these are free.',
    ),
  varies: z.array(variable).default([]).describe('Variables whose values are not part of `sample`.'),
});

const injectedVolume = z
  .strictObject({
    name: label,
    emptyDir: z.strictObject({}).optional(),
    downwardAPI: z.strictObject({}).optional(),
    configMap: objectName.optional().describe('The name of the ConfigMap.'),
    secret: objectName.optional().describe('The name of the Secret.'),
    tokenFor: z.string().min(1).max(1024).optional().describe('The audience of a token of the pod’s ServiceAccount.'),
  })
  .refine(({ name: _, ...sources }) => Object.values(sources).filter((v) => v !== undefined).length === 1, {
    error: 'exactly one of `emptyDir`, `downwardAPI`, `configMap`, `secret` and `tokenFor`',
  });

/** Schema of an entry of `spec.admission.injected`: all that an injector may add to pods. */
export const injectionSchema = z.strictObject({
  name: label.describe('The name of the injector in messages.'),
  containers: z.array(injectedContainer).default([]),
  volumes: z
    .array(injectedVolume)
    .default([])
    .describe('Only injected containers mount them, but for `rewrites.mounts`.'),
  labels: z.array(metadataKey).default([]).describe('Labels that it adds, but for those of the template.'),
  annotations: z.array(metadataKey).default([]).describe('Annotations that it adds, but for those of the template.'),
  rewrites: z
    .strictObject({
      probes: z
        .int()
        .min(1)
        .max(65_535)
        .optional()
        .describe('The port of an injected container to which it directs HTTP, TCP and gRPC probes.'),
      autoImage: z
        .boolean()
        .default(false)
        .describe('It replaces a container of Git that has the image `auto` by the one of that name declared here.'),
      mounts: z
        .array(z.strictObject({ volume: label, mountPath }))
        .default([])
        .describe('Volumes of this injector that it mounts in Git’s containers, and where.'),
      env: z.array(variable).default([]).describe('Variables that it adds to Git’s containers.'),
    })
    .prefault({})
    .describe('Changes in containers of Git. All others leave a pod unproven.'),
});

/** An entry of `spec.admission.injected`. */
export type Injection = z.infer<typeof injectionSchema>;

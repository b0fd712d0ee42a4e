import { readFileSync } from 'node:fs';
import type { SealedSecrets } from '../gate/index.ts';
import {
  CountersignError,
  type Environment,
  messageOf,
  type RenderedObject,
  refText,
  USER_ANNOTATION,
} from '../model/index.ts';
import type { ClusterPort } from '../reconcile/index.ts';
import { type DecryptionKeys, openSealed } from '../sops/index.ts';

type Opener = (rendered: RenderedObject, revision?: string) => Promise<RenderedObject>;

/** Binds data keys to objects, and tells whether the environment already has an object as rendered. */
export type Binding = { readonly secrets: SealedSecrets; readonly isApplied: (rendered: RenderedObject) => boolean };

/**
 * Returns a function that decrypts SOPS objects with the current content of an environment's key files; others are
 * returned unchanged. With `binding`, a data key only decrypts the objects it was encrypted for.
 */
export function opener({ metadata, spec }: Environment, binding?: Binding): Opener {
  return async (rendered, revision = '') => {
    if (!('sops' in rendered.object)) return rendered;
    const keys: DecryptionKeys = {
      age: read(spec.decryption?.ageKeyFile),
      openpgp: read(spec.decryption?.openpgpKeyFile),
    };
    const { object, seal } = await openSealed(rendered, keys);
    if (seal !== undefined)
      await binding?.secrets.bind({
        environment: metadata.name,
        key: seal.key,
        object: refText(rendered.ref),
        file: rendered.source.file,
        revision,
        mayMove: allows(rendered, 'move-secret') || binding.isApplied(rendered),
      });
    return { ...rendered, object };
  };
}

function allows({ object }: RenderedObject, action: string): boolean {
  const said = object.metadata.annotations?.[USER_ANNOTATION.allow] ?? '';
  return said.split(',').some((part) => part.trim() === action);
}

/**
 * Wraps a cluster so that it gets encrypted objects decrypted; the judged and recorded objects stay as they are in Git.
 */
export function decrypting(cluster: ClusterPort, environment: Environment, binding: Binding): ClusterPort {
  const open = opener(environment, binding);
  return {
    watch: (...args) => cluster.watch(...args),
    live: (ref) => cluster.live(ref),
    endedWell: (ref) => cluster.endedWell(ref),
    knows: (ref) => cluster.knows(ref),
    get connected() {
      return cluster.connected;
    },
    otherOwner: (...args) => cluster.otherOwner(...args),
    isReadyFor: (ref) => cluster.isReadyFor(ref),
    dryRun: async (rendered, owned, writing) => cluster.dryRun(await open(rendered, owned.revision), owned, writing),
    dryRunAnew: async (rendered, owned, writing) =>
      cluster.dryRunAnew(await open(rendered, owned.revision), owned, writing),
    apply: async (rendered, owned, writing) => cluster.apply(await open(rendered, owned.revision), owned, writing),
    compare: async (rendered, owned, writing) => cluster.compare(await open(rendered, owned.revision), owned, writing),
    adoption: async (rendered, owned, writing) =>
      cluster.adoption(await open(rendered, owned.revision), owned, writing),
    established: (ref) => cluster.established(ref),
    remove: (...args) => cluster.remove(...args),
    read: (ref) => cluster.read(ref),
    troubles: (refs) => cluster.troubles(refs),
    contents: (...args) => cluster.contents(...args),
    isGone: (ref) => cluster.isGone(ref),
    hasInstances: (ref) => cluster.hasInstances(ref),
    takeOver: (ref) => cluster.takeOver(ref),
    stages: (objects) => cluster.stages(objects),
  };
}

function read(file: string | undefined): string | undefined {
  try {
    return file === undefined ? undefined : readFileSync(file, 'utf8');
  } catch (cause) {
    throw new CountersignError('decryption-failed', `the key file \`${file}\` cannot be read: ${messageOf(cause)}`, {
      cause,
      recover: 'retry',
      hint: 'mount it at the path in `spec.decryption`, readable for the service',
    });
  }
}

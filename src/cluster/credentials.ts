import { statSync } from 'node:fs';
import type { RequestOptions } from 'node:https';
import { extname } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { KubeConfig } from '@kubernetes/client-node';
import { resultOf, type ThreadAnswer } from '../model/index.ts';
import type { ClusterAddress } from './cluster-address.ts';

/** An API server's address, and the parts of requests to it that prove who we are. */
export type Credentials = { readonly url: string; readonly read: () => Promise<RequestOptions> };

/** How credentials are read. */
export type CredentialOptions = {
  /** Reads them in threads that end: the library that reads kubeconfigs would keep 30 MiB for as long as we run. */
  readonly aside?: boolean | undefined;
};

/** Result of a thread that reads a kubeconfig: `program` if one has to be run, or a plug-in of the library. */
export type ReadAside =
  | {
      readonly kind: 'read';
      readonly url: string;
      /** The context that was used; undefined for a pod's own account. */
      readonly context: string | undefined;
      readonly options: RequestOptions;
      /** Files that hold the credentials, and their state before they were read. */
      readonly files: readonly string[];
      readonly state: string;
    }
  | { readonly kind: 'program' };

/** Opens the credentials of an address. Throws `config-invalid`. */
export async function openCredentials(
  address: ClusterAddress,
  { aside = false }: CredentialOptions,
): Promise<Credentials> {
  const first = aside ? await readAside(address) : undefined;
  if (first?.kind === 'read') return new FileCredentials(address, first);
  const { loadKubeConfig } = await import('./load-kubeconfig.ts');
  return credentialsOf(loadKubeConfig(address));
}

/** Returns the credentials of a kubeconfig, which the library reads again, or renews by a program, each time. */
export function credentialsOf(config: KubeConfig): Credentials {
  return {
    url: config.getCurrentCluster()?.server ?? '',
    read: async () => {
      const options: RequestOptions = {};
      await config.applyToHTTPSOptions(options);
      return options;
    },
  };
}

type Read = ReadAside & { readonly kind: 'read' };

// Credentials that change only with the files they are in: tokens and certificates are rotated there.
class FileCredentials implements Credentials {
  readonly url: string;
  readonly #address: ClusterAddress;
  #last: Read;
  #reading: Promise<RequestOptions> | undefined;

  constructor(address: ClusterAddress, first: Read) {
    this.url = first.url;
    // The context that is current may be another one by then.
    this.#address = { ...address, context: address.context ?? first.context };
    this.#last = first;
  }

  // Requests that come while it is read wait for the same thread.
  readonly read = async (): Promise<RequestOptions> => {
    this.#reading ??= this.#readAgain().finally(() => {
      this.#reading = undefined;
    });
    return this.#reading;
  };

  async #readAgain(): Promise<RequestOptions> {
    if (stateOf(this.#last.files) === this.#last.state) return this.#last.options;
    const again = await readAside(this.#address);
    if (again.kind !== 'read') throw new Error('the kubeconfig names a program now: restart the service');
    if (again.url !== this.url) throw new Error('the kubeconfig names a different API server now: restart the service');
    this.#last = again;
    return again.options;
  }
}

/** Describes files so that a change of any of them is noticed. Throws if one cannot be read. */
export function stateOf(files: readonly string[]): string {
  return files
    .map((file) => {
      const { ino, mtimeMs, size } = statSync(file);
      return `${ino} ${mtimeMs} ${size}`;
    })
    .join();
}

async function readAside(address: ClusterAddress): Promise<ReadAside> {
  const worker = new Worker(new URL(`./kubeconfig-thread${extname(import.meta.url)}`, import.meta.url), {
    workerData: address,
  });
  try {
    const answer = await new Promise<ThreadAnswer<ReadAside>>((done, failed) => {
      worker.once('message', done);
      worker.once('error', failed);
      worker.once('exit', () => failed(new Error('the thread that reads the kubeconfig ended early')));
    });
    return resultOf(answer);
  } finally {
    await worker.terminate();
  }
}

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { tool } from '../../scripts/tools.ts';
import { freePorts } from './control-plane.ts';
import { until } from './service.ts';

/** An object store that speaks S3 (Versity's gateway over a directory) on loopback, with one bucket, `evidence`. */
export class ObjectStore {
  readonly url: string;
  readonly accessKey = 'evidence-writer';
  readonly secretKey = 'a-secret-of-tests-only';
  readonly #child: ChildProcess;
  readonly #bucket: string;

  private constructor(url: string, child: ChildProcess, bucket: string) {
    this.url = url;
    this.#child = child;
    this.#bucket = bucket;
  }

  static async start(directory: string): Promise<ObjectStore> {
    const bucket = join(directory, 'evidence');
    mkdirSync(bucket, { recursive: true });
    const program = await tool('versitygw', { pinned: true });
    const [port] = (await freePorts(1)) as [number];
    const args = [
      '--access',
      'evidence-writer',
      '--secret',
      'a-secret-of-tests-only',
      '--port',
      `127.0.0.1:${port}`,
      'posix',
      directory,
    ];
    const child = spawn(program, args, { stdio: 'ignore' });
    const store = new ObjectStore(`http://127.0.0.1:${port}`, child, bucket);
    const answers = () =>
      fetch(store.url).then(
        () => true,
        () => false,
      );
    await until(answers, 20_000, () => 'the object store does not answer');
    return store;
  }

  /** Names of what is in the bucket. */
  get names(): string[] {
    return readdirSync(this.#bucket, { recursive: true, withFileTypes: true })
      .filter((e) => e.isFile())
      .map((e) => join(e.parentPath, e.name).slice(this.#bucket.length + 1))
      .sort();
  }

  /** The one that was written last. */
  get newest(): string | undefined {
    const at = (name: string) => statSync(join(this.#bucket, name), { bigint: true }).mtimeNs;
    return this.names.sort((a, b) => (at(a) < at(b) ? -1 : 1)).at(-1);
  }

  read(name: string): Buffer {
    return readFileSync(join(this.#bucket, name));
  }

  async stop(): Promise<void> {
    this.#child.kill();
    if (this.#child.exitCode === null) await once(this.#child, 'exit');
  }
}

import { customResourceDefinitions } from '../config/index.ts';
import { EXIT, type Io } from '../terminal/index.ts';
import { printYaml } from '../yaml/index.ts';

/** `countersign crds`: what a cluster needs to know of our kinds, for `kubectl apply`. */
export async function crds(io: Io): Promise<number> {
  io.out(customResourceDefinitions().map(printYaml).join('---\n'));
  return EXIT.yes;
}

import { customResourceDefinitions } from '../config/index.ts';
import { EXIT, type Io } from '../terminal/index.ts';
import { printYaml } from '../yaml/index.ts';

/** Implements `countersign crds`: prints our CustomResourceDefinitions for `kubectl apply`. */
export async function crds(io: Io): Promise<number> {
  io.out(customResourceDefinitions().map(printYaml).join('---\n'));
  return EXIT.yes;
}

/**
 * Takes files and the process environment, and returns typed settings; the only reader of `process.env`. Refuses a
 * document with any problem, and reports all problems at once: file, line, path, found and expected value.
 */
export { customResourceDefinitions } from './crd.ts';
export type { ConfigurationObject } from './found.ts';
export { frameworkNamed } from './framework.ts';
export {
  type Configuration,
  keyOfObject,
  loadConfiguration,
  loadWithObjects,
  readTrustPolicy,
  readWaiver,
} from './load-configuration.ts';
export { type ProcessSettings, readProcessSettings } from './process-settings.ts';
export { version } from './version.ts';

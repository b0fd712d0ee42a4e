/**
 * Takes files and the process environment, gives typed settings; the only reader of `process.env`.
 * Refuses a document with any problem, and tells all problems at once: file, line, path, what was found and expected.
 */
export { customResourceDefinitions } from './crd.ts';
export { frameworkNamed } from './framework.ts';
export {
  type Configuration,
  type ConfigurationObject,
  keyOfObject,
  loadConfiguration,
  loadWithObjects,
  readTrustPolicy,
  readWaiver,
} from './load-configuration.ts';
export { type ProcessSettings, readProcessSettings } from './process-settings.ts';
export { version } from './version.ts';

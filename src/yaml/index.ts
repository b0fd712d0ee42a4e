/**
 * Takes YAML text. Returns its documents as JSON values, with the line of every value. It reads like the Kubernetes API
 * server (YAML 1.1 words for booleans, octal numbers, merges; dates stay text). Refuses duplicate keys, excessive
 * aliases, deep nesting and values JSON cannot hold.
 */
export {
  ambiguities,
  parseYaml,
  printYaml,
  type YamlDocument,
  YamlError,
  type YamlPlaces,
  yamlPlaces,
} from './parse-yaml.ts';

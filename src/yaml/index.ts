/**
 * Takes YAML text, gives its documents as JSON values with the line of every value. Reads as the Kubernetes API
 * server's own reader does (YAML 1.1 words for booleans, octal numbers, merges; dates stay text). Refuses duplicate
 * keys, more aliases than a person writes, deep nesting and what JSON cannot hold.
 */
export {
  type Ambiguity,
  ambiguities,
  parseYaml,
  printYaml,
  type YamlDocument,
  YamlError,
  type YamlPlaces,
  yamlPlaces,
} from './parse-yaml.ts';

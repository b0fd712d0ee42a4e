# Every rule against its examples: data.examples is made of policies/examples by whoever runs these tests.
package countersign.library_test

import data.countersign.change
import data.countersign.object as objects
import rego.v1

asked(example, subject) := {"object": subject, "environment": "production", "file": "a.yaml", "parameters": example.parameters, "images": example.images} if subject.kind

asked(example, subject) := {"change": subject, "environment": "production", "parameters": example.parameters} if not subject.kind

found(question) := {finding | some finding in object_findings(question)} | {finding | some finding in change_findings(question)}

object_findings(question) := all if {
	question.object
	all := objects.deny | objects.warn with input as question
}

object_findings(question) := set() if not question.object

change_findings(question) := all if {
	question.change
	all := change.deny | change.warn with input as question
}

change_findings(question) := set() if not question.change

rules_of(question) := {finding.rule | some finding in found(question)}

test_every_failing_example_is_found if {
	missed := {[name, i] |
		some name, example in data.examples
		some i, subject in example.fail
		not example.rule in rules_of(asked(example, subject))
	}
	print(missed)
	count(missed) == 0
}

test_no_passing_example_is if {
	mistaken := {[name, i] |
		some name, example in data.examples
		some i, subject in example.pass
		example.rule in rules_of(asked(example, subject))
	}
	print(mistaken)
	count(mistaken) == 0
}

test_there_are_examples if count(data.examples) > 50

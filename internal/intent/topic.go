package intent

import (
	"fmt"
	"strings"

	"cdc/internal/cdc"
)

// TopicName fills a template's {database} and {category}. Without {category} the
// events of all categories share a topic.
func TopicName(template, database, category string) (string, error) {
	if strings.Contains(template, "{schema}") || strings.Contains(template, "{table}") {
		return "", fmt.Errorf("topic template %q: events have no schema and no table, {database} and {category} are known", template)
	}
	name := strings.ReplaceAll(template, "{category}", category)
	if rest := strings.ReplaceAll(name, "{database}", ""); strings.ContainsAny(rest, "{}") {
		return "", fmt.Errorf("topic template %q: only {database} and {category} are known", template)
	}
	return cdc.TopicName(name, database, "", "")
}

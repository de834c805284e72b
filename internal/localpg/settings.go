package localpg

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// port names nothing but the socket's file: there is no TCP.
const port = "5432"

// socketFolder is where the socket lies in the run's folder.
const socketFolder = "s"

// defaults are the settings of every server, over those in postgresql.conf.
var defaults = map[string]string{
	// A commit that was acknowledged survives a loss of power.
	"fsync":              "on",
	"full_page_writes":   "on",
	"synchronous_commit": "on",

	"max_connections": "100",
	"shared_buffers":  "128MB",
	"timezone":        "UTC",

	"log_destination":   "stderr",
	"logging_collector": "off", // it would write to files that nobody reads
	"log_checkpoints":   "off",
	"log_line_prefix":   "%m [%p] ",
	"log_timezone":      "UTC",

	// The log must be fit to be shown to anybody. Statements, their parameters and
	// the rows in a DETAIL are left out, and so are errors as such: their text may
	// quote a value, and whoever caused one is told anyway. (As a threshold, "log"
	// ranks above "error" and below "fatal".)
	"log_statement":                     "none",
	"log_min_duration_statement":        "-1",
	"log_min_error_statement":           "panic",
	"log_min_messages":                  "log",
	"log_error_verbosity":               "terse",
	"log_parameter_max_length":          "0",
	"log_parameter_max_length_on_error": "0",
}

// fixed are the settings on which this package stands.
func fixed(socket string) map[string]string {
	return map[string]string{
		"listen_addresses":        "",
		"port":                    port,
		"unix_socket_directories": socket,
		"unix_socket_permissions": "0700",
	}
}

// alsoFixed have no value of ours, but would move the data away from Dir.
var alsoFixed = []string{"config_file", "data_directory", "external_pid_file", "hba_file", "ident_file"}

// checkSettings refuses what would undo this package's promises.
func checkSettings(settings map[string]string) error {
	mine := fixed("")
	for name := range settings {
		name := canonical(name)
		if _, ok := mine[name]; ok || slices.Contains(alsoFixed, name) {
			return fmt.Errorf("the PostgreSQL setting %s cannot be changed here: it decides where the server is reached or where its files lie", name)
		}
	}
	return nil
}

// arguments are postgres's. The folder comes first, where ps shows it.
func arguments(dir, socket string, settings map[string]string) []string {
	all := maps.Clone(defaults)
	for name, value := range settings {
		all[canonical(name)] = value
	}
	maps.Copy(all, fixed(socket))
	args := []string{"-D", dir}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		args = append(args, "-c", name+"="+all[name])
	}
	return args
}

// canonical is a setting's name as PostgreSQL understands it on a command line.
func canonical(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "-", "_")
}

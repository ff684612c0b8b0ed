// Package admin is the daemon's HTTP server: is it alive, is it ready, what is
// it doing, in forms for probes, for Prometheus and for people. It only reads:
// every answer is made from Source.Status at the moment of the request, so
// nothing here runs on the data path. What others mount beside it (the API of the
// event store) has its own rules.
package admin

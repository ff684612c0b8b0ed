package main

import (
	"context"
	"fmt"
	"strings"

	"cdc/internal/cdctest"
)

// network is what happens to connections, through the proxies.
func (n *nemesis) network(ctx context.Context, f fault) error {
	var proxies []*cdctest.Proxy
	side, what, _ := strings.Cut(f.kind, "-")
	if side == "pg" || side == "both" {
		proxies = append(proxies, n.lane.pgProxy)
	}
	if side == "kafka" || side == "both" {
		proxies = append(proxies, n.broker.proxy)
	}
	what, killed := strings.CutSuffix(what, "-and-kill")
	for _, p := range proxies {
		switch what {
		case "cut":
			p.Cut()
		case "stall":
			p.Stall()
		case "delay":
			p.Delay(f.hold / 20)
		case "half-open":
			p.HalfOpen()
		case "answers-lost":
			p.DropAnswers(f.count)
		case "refused":
			p.Refuse()
		default:
			return fmt.Errorf("no such fault")
		}
	}
	if what == "cut" {
		return nil
	}
	if err := sleep(ctx, f.hold); err != nil {
		return err
	}
	if killed {
		n.killMain()
	}
	for _, p := range proxies {
		p.Heal()
		if what == "half-open" { // what was swallowed never comes
			p.Cut()
		}
	}
	if killed {
		_, err := n.crew.start("")
		return err
	}
	return nil
}

package view

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"cdc/internal/intent"
)

// recoverEvery is the pause between two looks for transactions without an owner:
// the longest their locks stay after a daemon died while another lives.
const recoverEvery = time.Minute

// Run recovers at once and then every minute, and ends with ctx, or with the first
// error.
func (c *Coordinator) Run(ctx context.Context) error {
	tick := time.NewTicker(recoverEvery)
	defer tick.Stop()
	for {
		if err := c.Recover(ctx); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// prepared is the parts of one transaction that are found prepared.
type prepared struct {
	gid   gid
	parts []preparedPart
	// decided before its parts were looked for, so that all of them were prepared:
	// parts lacks none that is still there.
	decided bool
}

type preparedPart struct {
	number int
	where  string // host:port/name; "" the store
}

// Recover ends the prepared transactions of this store whose session is gone, in
// all databases: with a decision they are committed, the store first; without one
// they are rolled back. A transaction whose session lives, in whatever daemon, is
// left alone, and so is one that another recovery is at. Databases that cannot be
// reached are an error, after the others were seen to.
func (c *Coordinator) Recover(ctx context.Context) error {
	c.recovering.Lock()
	defer c.recovering.Unlock()
	conn, err := c.store.Pool().Acquire(ctx)
	if err != nil {
		return fmt.Errorf("recover prepared transactions: %w", err)
	}
	defer conn.Release()
	store, err := storeID(ctx, conn)
	if err != nil {
		return err
	}
	found, complete, problems := c.find(ctx, conn, store)
	for _, p := range found {
		if err := c.settle(ctx, conn, p, complete); err != nil {
			problems = append(problems, err)
		}
	}
	return errors.Join(problems...)
}

// find looks into every database. complete says that all that can hold a part were
// asked: only then may a decision be forgotten.
func (c *Coordinator) find(ctx context.Context, conn *pgxpool.Conn, store intent.ID) (found []prepared, complete bool, problems []error) {
	by := map[gid]*prepared{}
	// Decisions first: what is decided later has parts that are found below.
	rows, err := conn.Query(ctx, `select gid from es.decision where gid like $1`, gidPrefix+"%")
	if err != nil {
		return nil, false, []error{fmt.Errorf("read es.decision: %w", err)}
	}
	decided, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, false, []error{fmt.Errorf("read es.decision: %w", err)}
	}
	for _, name := range decided {
		if g, _, ok := parseGID(name + ":0"); ok && g.store == store {
			by[g] = &prepared{gid: g, decided: true}
		}
	}
	complete = true
	for _, where := range append([]string{""}, slices.Sorted(maps.Keys(c.databases))...) {
		names, err := c.preparedIn(ctx, conn, where, store)
		if err != nil {
			complete = false
			problems = append(problems, fmt.Errorf("look for prepared transactions in %s: %w", placeName(where), err))
			continue
		}
		for _, name := range names {
			g, part, ok := parseGID(name)
			if !ok {
				continue
			}
			if by[g] == nil {
				by[g] = &prepared{gid: g}
			}
			by[g].parts = append(by[g].parts, preparedPart{part, where})
		}
	}
	known, err := c.allKnown(ctx, conn)
	if err != nil {
		problems = append(problems, err)
	}
	for _, p := range by {
		slices.SortFunc(p.parts, func(a, b preparedPart) int { return a.number - b.number })
		found = append(found, *p)
	}
	slices.SortFunc(found, func(a, b prepared) int { return strings.Compare(a.gid.decision(), b.gid.decision()) })
	return found, complete && known && err == nil, problems
}

// allKnown says that a URL is configured for every database the store has a view in.
func (c *Coordinator) allKnown(ctx context.Context, conn *pgxpool.Conn) (bool, error) {
	rows, err := conn.Query(ctx, `select distinct database from es.view where mode = 'inline' and state <> 'retired' and database is not null`)
	if err != nil {
		return false, fmt.Errorf("read es.view: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return false, fmt.Errorf("read es.view: %w", err)
	}
	return !slices.ContainsFunc(names, func(name string) bool { return c.databases[name] == nil }), nil
}

// placeName is where a part is, for messages.
func placeName(where string) string { return cmp.Or(where, "the store") }

// in is where a part is: the store for "".
func (c *Coordinator) in(conn *pgxpool.Conn, where string) querier {
	if where == "" {
		return conn
	}
	return c.databases[where]
}

func (c *Coordinator) preparedIn(ctx context.Context, conn *pgxpool.Conn, where string, store intent.ID) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, settleLimit)
	defer cancel()
	rows, err := c.in(conn, where).Query(ctx, `select gid from pg_prepared_xacts
		where database = current_database() and gid like $1 order by prepared`, gidPrefix+store.String()+":%")
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// settle ends one transaction, unless its session lives.
func (c *Coordinator) settle(ctx context.Context, conn *pgxpool.Conn, p prepared, complete bool) error {
	var gone bool
	if err := conn.QueryRow(ctx, `select pg_try_advisory_lock($1)`, p.gid.owner).Scan(&gone); err != nil {
		return fmt.Errorf("take the lock of a deciding session: %w", err)
	}
	if !gone {
		return nil
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLimit)
		defer cancel()
		if _, err := conn.Exec(ctx, `select pg_advisory_unlock($1)`, p.gid.owner); err != nil {
			closeConn(conn.Conn()) // the lock goes with the session
		}
	}()
	var decided bool
	err := conn.QueryRow(ctx, `select exists (select from es.decision where gid = $1)`, p.gid.decision()).Scan(&decided)
	if err != nil {
		return fmt.Errorf("look for the decision: %w", err)
	}
	end, outcome := rollbackPrepared, "rolled back"
	if decided {
		end, outcome = commitPrepared, "committed"
	}
	for _, part := range p.parts { // ascending: the store first
		name := p.gid.part(part.number)
		if err := end(ctx, c.in(conn, part.where), name); err != nil {
			return fmt.Errorf("end prepared transaction %s in %s: %w", name, placeName(part.where), err)
		}
		c.hook("recovered")
		c.log.Warn("a prepared transaction without a session was ended", slog.String("gid", name), slog.String("database", placeName(part.where)), slog.String("outcome", outcome))
	}
	if p.decided && complete {
		if _, err := conn.Exec(ctx, `delete from es.decision where gid = $1`, p.gid.decision()); err != nil {
			return fmt.Errorf("forget the decision: %w", err)
		}
	}
	return nil
}

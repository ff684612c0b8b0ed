-- Appending. es.append takes the stream's row, which orders its writers, and
-- stores the whole call or nothing.

-- UPDATE, DELETE and TRUNCATE of what is written once.
create function es.refuse() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception '% of %.% refused: events are append-only', lower(tg_op), tg_table_schema, tg_table_name
    using errcode = '0A000', hint = 'Append an event that says what changed.';
end $$;

create trigger append_only before update or delete on es.event for each row       execute function es.refuse();
create trigger no_truncate before truncate         on es.event for each statement execute function es.refuse();
create trigger append_only before update or delete on es.log   for each row       execute function es.refuse();
create trigger no_truncate before truncate         on es.log   for each statement execute function es.refuse();
-- Streams are never deleted: their versions would begin again.
create trigger append_only before delete           on es.stream for each row       execute function es.refuse();
create trigger no_truncate before truncate         on es.stream for each statement execute function es.refuse();
-- Always: also where session_replication_role is replica.
alter table es.event  enable always trigger append_only;
alter table es.event  enable always trigger no_truncate;
alter table es.log    enable always trigger append_only;
alter table es.log    enable always trigger no_truncate;
alter table es.stream enable always trigger append_only;
alter table es.stream enable always trigger no_truncate;

-- es.invalid raises ES422: what can never succeed as it is.
create function es.invalid(path text, message text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception '%', message using errcode = 'ES422', detail = pg_catalog.jsonb_build_object('path', path);
end $$;

-- es.check_stream refuses a name that cannot be a stream's. Names are checked when
-- their row is made; a row that is there has a good one.
create function es.check_stream(stream text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  if stream is null or stream = '' or octet_length(stream) > 512 then
    perform es.invalid('stream', format('a stream''s name has 1 to 512 bytes, not %s', coalesce(octet_length(stream), 0)));
  elsif stream ~ '[\u0001-\u001f\u007f-\u009f]' then
    perform es.invalid('stream', 'a stream''s name has no control characters');
  elsif split_part(stream, '/', 1) !~ '^[A-Za-z0-9._-]{1,100}$' then
    perform es.invalid('stream', format('stream %s: the category, all before the first ''/'', names the topic: write 1 to 100 of letters, digits, ''.'', ''_'' and ''-'' there', to_json(stream)));
  end if;
end $$;

-- es.conflict raises ES409.
create function es.conflict(stream text, expected bigint, actual bigint, message text) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception '%', message using errcode = 'ES409',
    detail = pg_catalog.jsonb_build_object('stream', stream, 'expected', expected, 'actual', actual);
end $$;

-- es.repeated answers a call whose events, or some of them, are stored: as it was
-- answered the first time where all are, each in its stream and with its type;
-- else ES409.
create function es.repeated(streams text[], expect bigint[], ev_stream text[], ev_id uuid[], ev_type text[])
returns table (stream text, version bigint, duplicate boolean, token uuid) language plpgsql
set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  bad  record;
  last uuid;
begin
  select u.st, u.id, e.stream, e.type, s.version into bad
    from unnest(ev_stream, ev_id, ev_type) with ordinality u(st, id, ty, i)
    left join es.event e on e.id = u.id
    left join es.stream s on s.stream = u.st
   where e.id is null or e.stream <> u.st or e.type <> u.ty
   order by e.id is null, u.i limit 1;
  if found and bad.stream is null then
    perform es.conflict(bad.st, null, coalesce(bad.version, 0),
      format('event %s is not stored, others of the same append are: an append is repeated whole or not at all', bad.id));
  elsif found then
    perform es.conflict(bad.st, null, coalesce(bad.version, 0),
      format('event %s is stored already, in another stream or with another type', bad.id));
  end if;
  -- The last in the log: one that is not numbered yet comes after all that are.
  select u.id into last
    from unnest(ev_id) with ordinality u(id, i) left join es.log l on l.event = u.id
   order by l.pos desc nulls first, u.i desc limit 1;
  return query
    select s.name,
           coalesce(w.version, case when s.x >= 0 then s.x end, t.version, 0),
           true, last
      from unnest(streams, expect) s(name, x)
      left join es.stream t on t.stream = s.name
      left join (select e.stream, max(e.version) as version from es.event e where e.id = any (ev_id) group by 1) w on w.stream = s.name
     order by s.name collate "C";
end $$;

-- es.check_call refuses a call that is no call.
create function es.check_call(streams text[], expect bigint[], ev_stream text[], ev_id uuid[], ev_type text[], ev_data jsonb[],
  ev_meta jsonb[], ev_schema int[], ev_subjects text[]) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  n   int := cardinality(ev_id);
  bad text;
begin
  if coalesce(cardinality(streams), 0) = 0 then
    raise exception 'streams is empty: name at least one stream' using errcode = '22023';
  elsif cardinality(expect) is distinct from cardinality(streams) then
    raise exception 'expect has % elements and streams %: give one for each stream', coalesce(cardinality(expect), 0), cardinality(streams) using errcode = '22023';
  elsif n is null or cardinality(ev_stream) is distinct from n or cardinality(ev_type) is distinct from n or cardinality(ev_data) is distinct from n
     or cardinality(ev_meta) <> n or cardinality(ev_schema) <> n or cardinality(ev_subjects) <> n then
    raise exception 'the arrays of events differ in length: give one element for each event in all of them' using errcode = '22023';
  elsif array_ndims(streams) > 1 or array_ndims(expect) > 1 or array_ndims(ev_stream) > 1 or array_ndims(ev_id) > 1 or array_ndims(ev_type) > 1
     or array_ndims(ev_data) > 1 or array_ndims(ev_meta) > 1 or array_ndims(ev_schema) > 1 or array_ndims(ev_subjects) > 1 then
    raise exception 'arrays of several dimensions' using errcode = '22023';
  elsif array_position(ev_id, null) is not null then
    raise exception 'an event without an id' using errcode = '22023';
  elsif exists (select from unnest(expect) x where x < -1) then
    raise exception 'expected version below -1: write null for any, 0 for none, -1 for some, or the version' using errcode = '22023';
  end if;
  select min(s) into bad from unnest(streams) s group by s having count(*) > 1 limit 1;
  if found then
    raise exception 'stream % is named twice in one append', to_json(bad) using errcode = '22023';
  end if;
  select i into bad from unnest(ev_id) i group by i having count(*) > 1 limit 1;
  if found then
    raise exception 'event % stands twice in one append', bad using errcode = '22023';
  end if;
  select u into bad from unnest(ev_stream) u where not exists (select from unnest(streams) s where s = u) limit 1;
  if found then
    raise exception 'an event goes to stream %, which is not in streams', to_json(bad) using errcode = '22023';
  end if;
end $$;

-- es.subjects_ok says that the text of an array is one of subjects: at most 100, of
-- 1 to 512 bytes each.
create function es.subjects_ok(subjects text) returns boolean language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  s text[] := subjects;
begin
  return coalesce(array_ndims(s), 1) = 1 and cardinality(s) <= 100
    and not exists (select from unnest(s) u where u is null or octet_length(u) not between 1 and 512);
end $$;

-- es.check_events refuses events that cannot be stored as they are; of several the
-- first is told.
create function es.check_events(max_event int, undeclared boolean, ev_stream text[], ev_id uuid[], ev_type text[], ev_data jsonb[],
  ev_meta jsonb[], ev_schema int[], ev_subjects text[]) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  bad record;
begin
  select * into bad from (
    select u.i, u.id, octet_length(u.da::text) + coalesce(octet_length(u.me::text), 0) as size,
           case when u.ty is null or octet_length(u.ty) not between 1 and 40 or u.ty ~ '[\u0001-\u001f\u007f-\u009f]' then 'type'
                when jsonb_typeof(u.da) is distinct from 'object' then 'data'
                when jsonb_typeof(u.me) <> 'object' then 'meta'
                when u.sc < 1 then 'schema'
                when octet_length(u.da::text) + coalesce(octet_length(u.me::text), 0) > max_event then 'size'
                when not es.subjects_ok(u.su) then 'subjects' end as field
      from unnest(ev_id, ev_type, ev_data, ev_meta, ev_schema, ev_subjects) with ordinality u(id, ty, da, me, sc, su, i)) v
   where v.field is not null order by v.i limit 1;
  if bad.field = 'size' then
    raise exception 'event % has % bytes of data and meta, at most % are allowed (max_event)', bad.id, bad.size, max_event using errcode = '54000';
  elsif found then
    perform es.invalid(bad.field, format('event %s: %s', bad.id, case bad.field
      when 'type' then 'a type has 1 to 40 bytes and no control characters'
      when 'schema' then 'schema counts from 1'
      when 'subjects' then 'at most 100 subjects, of 1 to 512 bytes'
      else bad.field || ' must be a JSON object' end));
  end if;
  if not undeclared or exists (select from es.declared d where d.type = any (ev_type)) then
    perform es.validate(u.st, u.ty, coalesce(u.sc, d.schema, 1), u.da, coalesce(u.me, '{}'))
       from unnest(ev_stream, ev_type, ev_data, ev_meta, ev_schema) with ordinality u(st, ty, da, me, sc, i)
       left join es.declared d on d.type = u.ty
      where not undeclared or d.type is not null
      order by u.i;
  end if;
end $$;

-- es.append_all is es.append for every call. Rows of streams are taken in the order
-- of their names, each once and as it is needed, to write or shared to check: two
-- calls cannot wait for each other.
create function es.append_all(streams text[], expect bigint[], ev_stream text[], ev_id uuid[], ev_type text[], ev_data jsonb[],
  ev_meta jsonb[], ev_schema int[], ev_subjects text[])
returns table (stream text, version bigint, duplicate boolean, token uuid) language plpgsql
set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  n     int := cardinality(ev_id);
  names text[] := '{}';                               -- as sorted
  base  bigint[] := '{}';                             -- the version each has
  news  bigint[] := '{}';                             -- the events each gets
  meta  record;
  s     record;
  v     bigint;
  ended boolean;
begin
  perform es.check_call(streams, expect, ev_stream, ev_id, ev_type, ev_data, ev_meta, ev_schema, ev_subjects);
  if exists (select from es.event e where e.id = any (ev_id)) then
    return query select * from es.repeated(streams, expect, ev_stream, ev_id, ev_type);
    return;
  end if;
  for s in select u.name, u.x, coalesce(c.n, 0) as n
             from unnest(streams, expect) u(name, x) left join (select e, count(*) as n from unnest(ev_stream) e group by e) c on c.e = u.name
            order by u.name collate "C" loop
    loop
      if s.n > 0 then
        select t.version, t.closed is not null into v, ended from es.stream t where t.stream = s.name for no key update;
      else
        select t.version, false into v, ended from es.stream t where t.stream = s.name for share;
      end if;
      exit when found;
      perform es.check_stream(s.name);
      v := 0;
      ended := false;
      -- Where nothing is written a missing row is made only to hold others off.
      exit when s.n = 0 and s.x is distinct from 0;
      insert into es.stream values (s.name, 0) on conflict do nothing;
    end loop;
    -- The same call may have come first while we waited.
    if ended or s.x >= 0 and s.x <> v or s.x = -1 and v = 0 then
      if exists (select from es.event e where e.id = any (ev_id)) then
        return query select * from es.repeated(streams, expect, ev_stream, ev_id, ev_type);
        return;
      elsif ended then
        raise exception 'stream % is closed', to_json(s.name) using errcode = 'ES410', detail = jsonb_build_object('stream', s.name);
      end if;
      perform es.conflict(s.name, s.x, v, format('stream %s has version %s, expected was %s', to_json(s.name), v,
        case s.x when 0 then 'none' when -1 then 'some' else s.x::text end));
    end if;
    names := names || s.name;
    base := base || v;
    news := news || s.n;
  end loop;
  if n > 0 then
    if exists (select from es.event e where e.id = any (ev_id)) then
      return query select * from es.repeated(streams, expect, ev_stream, ev_id, ev_type);
      return;
    end if;
    select m.max_event, m.undeclared into meta from es.meta m where m.one;
    perform es.check_events(meta.max_event, meta.undeclared, ev_stream, ev_id, ev_type, ev_data, ev_meta, ev_schema, ev_subjects);
    -- In the order of the call, which becomes that of the log.
    insert into es.event (id, stream, version, type, schema, data, meta, subjects)
    select u.id, u.st, l.v + row_number() over (partition by u.st order by u.i), u.ty,
           coalesce(u.sc, d.schema, 1), u.da, coalesce(u.me, '{}'), coalesce(u.su::text[], '{}')
      from unnest(ev_stream, ev_id, ev_type, ev_data, ev_meta, ev_schema, ev_subjects) with ordinality u(st, id, ty, da, me, sc, su, i)
      join unnest(names, base) l(name, v) on l.name = u.st
      left join es.declared d on d.type = u.ty
     order by u.i
        on conflict (id) do nothing;
    get diagnostics v = row_count;
    if v <> n then
      perform es.conflict(streams[1], null, 0, 'events of this append were stored at the same moment, in other streams');
    end if;
    update es.stream t set version = t.version + l.n from unnest(names, news) l(name, n) where t.stream = l.name and l.n > 0;
  end if;
  return query select l.name, l.v + l.n, false, ev_id[cardinality(ev_id)] from unnest(names, base, news) with ordinality l(name, v, n, i) order by l.i;
end $$;

-- es.append stores events, all of a call or none, and is idempotent: a call whose
-- events are stored is answered as the first time, before any version is looked
-- at. A row for each stream, sorted; the token is the id of the call's event that
-- is last in the log.
--
-- Plans are kept by a session for as long as it lasts. One made while the tables were
-- small must not read them whole when they have grown: enable_seqscan is off. jit
-- would answer to the cost that this puts on what has no index.
--
-- What stands here is the short way of the common call, one event to a stream that
-- is there: es.admit judges the event by constants, without a table; one UPDATE sees
-- that it is not stored, takes the stream's row and moves it on; one INSERT. Each
-- statement and each expression counts, for a session sets them up in every
-- transaction anew. Whatever is not as hoped goes through es.append_all, which has
-- all the rules and says what is wrong.
create function es.append(
  streams text[], expect bigint[],                    -- every stream written or only checked; null any, 0 none, -1 some, n exactly n
  ev_stream text[], ev_id uuid[], ev_type text[], ev_data jsonb[],
  ev_meta jsonb[] default null, ev_schema int[] default null,
  ev_subjects text[] default null                     -- of each event an array's text: '{stu_9}'
) returns table (stream text, version bigint, duplicate boolean, token uuid) language plpgsql
security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
#variable_conflict use_column
declare
  x  bigint := expect[1];
  da jsonb := ev_data[1];
  me jsonb := coalesce(ev_meta[1], '{}');
  sc int;
begin
  stream := streams[1];
  token := ev_id[1];
  if cardinality(streams) = 1 and cardinality(ev_id) = 1 and token is not null and ev_stream[1] = stream and (x is null or x >= -1)
     and cardinality(expect) = 1 and cardinality(ev_stream) = 1 and cardinality(ev_type) = 1 and cardinality(ev_data) = 1
     and coalesce(cardinality(ev_meta), 1) = 1 and coalesce(cardinality(ev_schema), 1) = 1 and coalesce(cardinality(ev_subjects), 1) = 1
     and coalesce(array_ndims(ev_meta), 1) = 1 and coalesce(array_ndims(ev_schema), 1) = 1 and coalesce(array_ndims(ev_subjects), 1) = 1
     and octet_length(ev_type[1]) between 1 and 40 and ev_type[1] !~ '[\u0001-\u001f\u007f-\u009f]'
     and jsonb_typeof(da) = 'object' and jsonb_typeof(me) = 'object' and coalesce(ev_schema[1], 1) > 0
     and (ev_subjects[1] is null or es.subjects_ok(ev_subjects[1])) then
    sc := es.admit(stream, ev_type[1], ev_schema[1], da, octet_length(da::text) + octet_length(me::text));
    if sc is not null then
      update es.stream t set version = t.version + 1
       where t.stream = append.stream and t.closed is null and (x is null or t.version = x or x = -1 and t.version > 0)
         and not exists (select from es.event e where e.id = append.token)
      returning t.version into version;
      if found then
        insert into es.event (id, stream, version, type, schema, data, meta, subjects)
        values (append.token, append.stream, append.version, ev_type[1], sc, da, me, coalesce(ev_subjects[1]::text[], '{}'))
            on conflict (id) do nothing;
        if found then
          duplicate := false;
          return next;
          return;
        end if;
        -- The same event was stored while we waited for the stream.
        update es.stream t set version = t.version - 1 where t.stream = append.stream;
      end if;
    end if;
  end if;
  return query select * from es.append_all(streams, expect, ev_stream, ev_id, ev_type, ev_data, ev_meta, ev_schema, ev_subjects);
end $$;

-- es.expected reads an expected version as users write it: a number, none, some or any.
create function es.expected(path text, x jsonb) returns bigint language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  case
    when x is null or x = 'null' or x = '"any"' then return null;
    when x = '"none"' then return 0;
    when x = '"some"' then return -1;
    when jsonb_typeof(x) = 'number' and x::numeric >= 0 and x::numeric % 1 = 0 and x::numeric <= 9223372036854775807 then return x::bigint;
    else perform es.invalid(path, 'expect: write a number from 0, or none, some or any');
  end case;
end $$;

-- es.check_keys refuses a member that has no meaning: a misspelt "expect" would be
-- an append without a check.
create function es.check_keys(path text, value jsonb, known text[]) returns void language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  k text;
begin
  if jsonb_typeof(value) is distinct from 'object' then
    perform es.invalid(path, format('%s must be a JSON object', path));
  end if;
  select u into k from jsonb_object_keys(value) u where u <> all (known) order by u limit 1;
  if found then
    perform es.invalid(path || '.' || k, format('%s.%s is not known: there are %s', path, k, array_to_string(known, ', ')));
  end if;
end $$;

-- es.text_of gives a member that must be a string.
create function es.text_of(path text, value jsonb) returns text language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  if jsonb_typeof(value) is distinct from 'string' then
    perform es.invalid(path, format('%s must be a string', path));
  end if;
  return value #>> '{}';
end $$;

-- The same from JSON, as POST /v1/append takes it:
-- [{"stream", "expect", "events": [{"id", "type", "data", "meta", "schema", "subjects"}]}]
create function es.append(batches jsonb)
returns table (stream text, version bigint, duplicate boolean, token uuid) language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
  streams text[] := '{}';
  expect  bigint[] := '{}';
  of      text[] := '{}';
  ids     uuid[] := '{}';
  types   text[] := '{}';
  datas   jsonb[] := '{}';
  metas   jsonb[] := '{}';
  schemas int[] := '{}';
  people  text[] := '{}';
  b       record;
  e       record;
  path    text;
begin
  if jsonb_typeof(batches) is distinct from 'array' then
    perform es.invalid('batches', 'batches must be a JSON array of {"stream", "expect", "events"}');
  end if;
  for b in select v, 'batches[' || i - 1 || ']' as path from jsonb_array_elements(batches) with ordinality a(v, i) loop
    perform es.check_keys(b.path, b.v, '{stream,expect,events}');
    streams := streams || es.text_of(b.path || '.stream', b.v->'stream');
    expect := expect || es.expected(b.path || '.expect', b.v->'expect');
    if b.v ? 'events' and jsonb_typeof(b.v->'events') <> 'array' then
      perform es.invalid(b.path || '.events', format('%s.events must be a JSON array', b.path));
    end if;
    for e in select v, b.path || '.events[' || i - 1 || ']' as path from jsonb_array_elements(b.v->'events') with ordinality a(v, i) loop
      perform es.check_keys(e.path, e.v, '{id,type,data,meta,schema,subjects}');
      of := of || (b.v->>'stream');
      ids := ids || es.text_of(e.path || '.id', e.v->'id')::uuid;
      types := types || es.text_of(e.path || '.type', e.v->'type');
      datas := datas || (e.v->'data');
      metas := metas || nullif(e.v->'meta', 'null');
      if e.v ? 'schema' and jsonb_typeof(e.v->'schema') not in ('number', 'null') then
        perform es.invalid(e.path || '.schema', format('%s.schema must be a number', e.path));
      end if;
      schemas := schemas || (e.v->>'schema')::int;
      if e.v ? 'subjects' and (jsonb_typeof(e.v->'subjects') <> 'array'
         or jsonb_path_exists(e.v, '$.subjects[*] ? (@.type() != "string")')) then
        perform es.invalid(e.path || '.subjects', format('%s.subjects must be a JSON array of strings', e.path));
      end if;
      people := people || (select array_agg(s order by i)::text from jsonb_array_elements_text(e.v->'subjects') with ordinality a(s, i));
    end loop;
  end loop;
  return query select * from es.append(streams, expect, of, ids, types, datas, metas, schemas, people);
end $$;

-- es.close ends a stream: nothing is appended to it any more. Of a stream that is
-- closed already it says nothing.
create function es.close(stream text, expect bigint default null) returns void language plpgsql
security definer set search_path = pg_catalog, pg_temp as $$
declare
  v bigint;
  c timestamptz;
begin
  if expect < -1 then
    raise exception 'expected version below -1: write null for any, 0 for none, -1 for some, or the version' using errcode = '22023';
  end if;
  select t.version, t.closed into v, c from es.stream t where t.stream = close.stream for no key update;
  if not found then
    raise exception 'there is no stream %', to_json(stream) using errcode = 'ES404';
  elsif c is not null then
    return;
  elsif expect >= 0 and expect <> v or expect = -1 and v = 0 then
    perform es.conflict(stream, expect, v, format('stream %s has version %s, expected was %s', to_json(stream), v,
      case expect when 0 then 'none' when -1 then 'some' else expect::text end));
  end if;
  update es.stream t set closed = clock_timestamp() where t.stream = close.stream;
end $$;

grant execute on function es.append(text[], bigint[], text[], uuid[], text[], jsonb[], jsonb[], int[], text[]) to es_writer;
grant execute on function es.append(jsonb) to es_writer;
grant execute on function es.close(text, bigint) to es_writer;
